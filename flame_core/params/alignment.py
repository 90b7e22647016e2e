"""`probe`: which LLMs, layers and towers `flame probe` compares. Optional; no stage reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from flame_core.names import DottedName, Name
from flame_core.params.model_source import require_model_source
from flame_core.params.section import Positive, Section, refuse
from flame_core.params.text import LLMParams, SentenceParams

Sides = Literal["both", "texts", "pictures"]


class ProbedLLM(Section):
    """An LLM, given as in the section `llm`; without a source, it is that of the section `llm`."""

    source: Annotated[str, AfterValidator(require_model_source)] | None = Field(
        default=None, description="as llm.source; null: the source and digests of the section llm"
    )
    sha256: str | list[str] | None = Field(default=None, description="as llm.sha256")
    file_sha256: str | None = Field(default=None, description="as llm.file_sha256")
    trust_remote_code: bool = Field(default=False, description="as llm.trust_remote_code")
    random_seed: int | None = Field(default=None, description="random weights drawn with this seed: the untrained twin")
    layers: list[Positive] | Literal["all"] = Field(
        default="all", description="decoder layers whose output is read (1-based), before the final norm"
    )

    @model_validator(mode="after")
    def _is_an_llm(self) -> ProbedLLM:
        if self.source is not None:
            self.llm("x", LLMParams(name="x", source="path:x"))  # whose rules these values follow
        elif self.sha256 or self.file_sha256 or self.trust_remote_code:
            raise ValueError("give a source with sha256, file_sha256 and trust_remote_code; without, llm's are used")
        if self.layers != "all" and (not self.layers or len(set(self.layers)) < len(self.layers)):
            raise ValueError(f"layers {self.layers}: name at least one, each once")
        return self

    def llm(self, name: str, own: LLMParams) -> LLMParams:
        """The values of a section `llm` for this LLM; `own` is that of the params."""
        if self.source is None:
            if self.random_seed is None:
                return own
            return own.model_copy(update={"name": name, "random_seed": self.random_seed})
        return LLMParams(name=name, **self.model_dump(exclude={"layers"}))


class ProbedTower(Section):
    """A tower by its stored vectors, or a trained model; one of both."""

    features: str | None = Field(
        default=None, description="folder of vectors that `flame features` stored, such as data/sidecars/features"
    )
    model: str | None = Field(
        default=None,
        description="folder of a trained model, such as data/models/flame; the mean patch before its projector is read",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> ProbedTower:
        if (self.features is None) == (self.model is None):
            raise ValueError("give either features, a folder of stored vectors, or model, a folder of a trained model")
        return self


class ProbeParams(Section):
    """What `flame probe` compares, and on how many pairs."""

    llms: dict[DottedName, ProbedLLM] = Field(min_length=1, description="by a name of your choice")
    towers: dict[Name, ProbedTower] = Field(min_length=1, description="by a name of your choice")
    pairs: int = Field(
        default=1000, ge=30, description="training pairs with different captions that are drawn; each LLM reads them"
    )
    folds: int = Field(default=3, ge=2, le=10, description="parts of the pairs; maps are fitted on all but one of them")
    reading: SentenceParams | None = Field(
        default=None,
        description="how an LLM reads a caption, but for the layer; null: as text.template.raw, the mean of its facets",
    )
    maps: Sides = Field(default="both", description="which vectors get a linear map: both, or those of one side")
    recall_at: list[Positive] = Field(default=[1, 5, 10], min_length=1, description="k; pages rank by the last")
    neighbours: Positive = Field(default=10, description="k of the mutual nearest neighbours")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the drawn pairs, the folds and the bootstrap")
    resamples: int = Field(default=1000, ge=100, description="of the bootstrap over pairs")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="of the intervals")

    @model_validator(mode="after")
    def _values_fit_together(self, info: ValidationInfo) -> ProbeParams:
        refuse(self._misfits(), info)
        return self

    def _misfits(self) -> Iterator[tuple[tuple[str, ...], str]]:
        if self.reading is not None and (self.reading.layer is not None or self.reading.final_norm):
            yield (
                ("reading",),
                "probe.reading: leave out layer and final_norm; probe.llms.<name>.layers says the layers",
            )
        gallery = self.pairs // self.folds
        if max(self.recall_at) * 2 > gallery:
            yield (
                ("recall_at",),
                f"probe.recall_at {max(self.recall_at)}: too many of the {gallery} pairs of a fold for a recall that "
                "tells anything",
            )
        if self.neighbours * 2 > self.pairs:
            yield ("neighbours",), f"probe.neighbours {self.neighbours}: too many of {self.pairs} pairs"
