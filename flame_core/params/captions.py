"""`ingest` and `caption`: raw pairs to shards, and who writes the captions."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from flame_core.language_names import meant_code
from flame_core.names import LanguageCode, Name
from flame_core.params.auto import IngestSizes, ingest_sizes
from flame_core.params.caption_lm import CaptionWriting
from flame_core.params.chat_server import ServerCaptioner
from flame_core.params.filters import BlurParams, PairFilterParams
from flame_core.params.model_source import require_model_source
from flame_core.params.sampling import LinkedPath
from flame_core.params.section import (
    AUTO,
    BY_NAME,
    Fraction,
    FractionOrAuto,
    Positive,
    PositiveOrAuto,
    Section,
    one_or_by_name,
    refuse,
)
from flame_core.params.sources import Encoding


class IngestGates(Section):
    """Thresholds of the checks of `flame ingest`."""

    min_kept_fraction: Fraction = Field(
        default=0.5, description="share of the listed pairs that are kept; what filters leave out is not counted"
    )
    min_train_samples: Positive = Field(default=2, description="of the training split")
    min_val_samples: Positive = Field(default=2, description="of the held-out split")


class IngestParams(Section):
    """Raw pairs to shards."""

    val_fraction: FractionOrAuto = Field(
        default=0.02, description="share of the pairs that is held out; auto: enough to measure, at most a fifth or so"
    )
    shard_samples: PositiveOrAuto = Field(
        default=1000, description="samples per shard, on average; auto: about an eighth of the pairs, at most 4,096"
    )
    max_pixels: Positive = Field(default=100_000_000, description="a larger picture is dropped before it is decoded")
    max_side: Positive = Field(
        default=512, description="longer side of the stored picture; larger ones are scaled down"
    )
    jpeg_quality: int = Field(
        default=95, ge=1, le=100, description="of stored pictures, but for JPEG files that need no change"
    )
    max_caption_chars: Positive = Field(default=10_000, description="longer captions are cut, and counted")
    near_duplicate_distance: int = Field(
        default=6,
        ge=-1,
        le=16,
        description="pictures of similar colours are near-duplicates if their perceptual hashes (64 bits) differ in "
        "at most this many bits; -1: off",
    )
    filters: PairFilterParams = PairFilterParams()
    blur: BlurParams | None = Field(default=None, description="boxes of pictures that are blurred; null: none")
    gates: IngestGates = IngestGates()

    @property
    def automatic(self) -> list[str]:
        """Fields that are `auto`."""
        return [name for name in IngestSizes._fields if getattr(self, name) == AUTO]

    def sizes(self, pairs: int) -> IngestSizes:
        """Validation and shard size for so many listed pairs."""
        return ingest_sizes(pairs, self.val_fraction, self.shard_samples)


class MetadataCaptioner(Section):
    """Composes captions from title, keywords, category and measurements of the picture. Deterministic."""

    captioner: Literal["metadata"] = "metadata"


class _GeneratingCaptioner(Section):
    model: Annotated[str, AfterValidator(require_model_source)] = Field(
        pattern=r"^(hub:[^@]+@.+|path:.+)$", description="hub:<id>@<revision> or path:<folder>"
    )
    prompt: str = Field(description="what the model is asked, with {caption} for the raw caption")
    max_new_tokens: Positive = Field(default=64, description="of a caption, at most")
    batch_size: Positive = Field(default=8, description="captions that are written at once")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="of the model")
    trust_remote_code: bool = Field(
        default=False, description="run code that comes with the model; needs hub: with a revision"
    )

    @model_validator(mode="after")
    def _remote_code_needs_a_revision(self) -> _GeneratingCaptioner:
        if self.trust_remote_code and not self.model.startswith("hub:"):
            raise ValueError("trust_remote_code needs a model of the form hub:<id>@<revision>")
        return self


class RewriteCaptioner(_GeneratingCaptioner):
    """A local causal LM rewrites the raw caption; `{caption}` in the prompt is replaced."""

    captioner: Literal["rewrite"]

    @field_validator("prompt")
    @classmethod
    def _with_the_caption(cls, prompt: str) -> str:
        if "{caption}" not in prompt:
            raise ValueError("the prompt must contain {caption}")
        return prompt


class VLMCaptioner(_GeneratingCaptioner):
    """An image-text-to-text model describes the picture; `{caption}` in the prompt is replaced if present."""

    captioner: Literal["vlm"]


class TrainedCaptioner(Section):
    """A captioner of `flame caption-lm`, or the model of a recipe with the term prompts: the LLM writes."""

    captioner: Literal["trained"]
    model: LinkedPath = Field(
        description="models:/<name>@<alias> or /<version>, runs:/<id>, a recipe, or a model's folder; not of this run"
    )
    llm: LinkedPath | None = Field(
        default=None, description="folder of the model's LLM, as `flame fetch-llm` leaves it; null: data/llm/<its name>"
    )
    writing: CaptionWriting = CaptionWriting()
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="of the LLM")


_KINDS: tuple[Literal["short"], Literal["long"]] = ("short", "long")
NAMING_SOURCES = {  # what a table may call a sample: the kinds of sources that have such names
    "url": ("urls",),
    "image": ("folder", "webdataset", "hub"),
}


def _here(path: str) -> str:
    """`path`, if it is no address."""
    if "://" in path:
        raise ValueError("tables of captions are on this machine: copy them from that address")
    return path


_Table = Annotated[LinkedPath, AfterValidator(_here)]
_Tables = Annotated[
    Annotated[_Table, Tag("one")] | Annotated[dict[Name, _Table], Field(min_length=1), Tag(BY_NAME)],
    Discriminator(one_or_by_name),
]


class ColumnCaptioner(Section):
    """Captions that are there already, in a column that the sources keep; a sample may have several."""

    captioner: Literal["column"]
    column: str = Field(
        min_length=1,
        description="a column or field in `keep_columns` of a source: a text, a list of texts, or {language: texts}",
    )
    language: Annotated[LanguageCode, AfterValidator(meant_code)] = Field(
        default="en", description="language of the captions"
    )
    max_caption_chars: Positive = Field(default=10_000, description="longer captions are cut, and counted")


class TableCaptioner(Section):
    """Captions that are there already, in a table; a sample may have several."""

    captioner: Literal["table"]
    path: _Tables = Field(
        description="the table, or a folder of tables (.csv, .tsv, .jsonl, .parquet or .json, each also with .gz), or "
        "{source: such a path}",
    )
    caption_column: str = Field(
        default="caption", min_length=1, description="a text, a list of texts, or {language: texts}"
    )
    match: Literal["key", "url", "image", "sha256"] = Field(
        default="key",
        description="what a row calls its sample: the key or sha256 that it has in data/shards/index.parquet, its "
        "address in a source of kind urls, or its file in a folder or a tar",
    )
    match_column: str | None = Field(
        default=None, min_length=1, description="column that says it; null: the one named as `match`"
    )
    language: Annotated[LanguageCode, AfterValidator(meant_code)] = Field(
        default="en", description="language of the captions"
    )
    encoding: Encoding = "utf-8"
    max_caption_chars: Positive = Field(default=10_000, description="longer captions are cut, and counted")

    @model_validator(mode="after")
    def _two_columns(self, info: ValidationInfo) -> TableCaptioner:
        same = self.name_column == self.caption_column
        said = f"{self.caption_column!r} is the column that names the sample (`match`, `match_column`)"
        refuse([(("caption_column",), said)] if same else [], info)
        return self

    @property
    def name_column(self) -> str:
        """The column that says which sample a row is about."""
        return self.match_column or self.match

    @property
    def tables(self) -> list[tuple[str | None, str]]:
        """(source that it is about, if it says so; path) of each table."""
        return [*self.path.items()] if isinstance(self.path, dict) else [(None, self.path)]

    @property
    def table_names(self) -> dict[str | None, str]:
        """The names of the tables by source."""
        return {source: PurePosixPath(path).name for source, path in self.tables}


FoundCaptioner = ColumnCaptioner | TableCaptioner  # of captions that are there already
Captioner = Annotated[
    MetadataCaptioner | RewriteCaptioner | VLMCaptioner | TrainedCaptioner | ServerCaptioner | FoundCaptioner,
    Field(discriminator="captioner"),
]


class CaptionGates(Section):
    """Thresholds of the checks of `flame caption`."""

    max_identical_fraction: Fraction = Field(
        default=0.9, description="of written captions that repeat a raw one, or all say the same"
    )
    max_failed_fraction: Fraction = Field(default=0.05, description="of samples without a written caption")


class CaptionParams(Section):
    """Short and long captions; raw captions come from the source. A kind set to null is not made."""

    short: Captioner | None = Field(default=MetadataCaptioner(), description="who writes short captions; null: nobody")
    long: Captioner | None = Field(default=MetadataCaptioner(), description="who writes long captions; null: nobody")
    gates: CaptionGates = CaptionGates()

    @property
    def tables(self) -> list[tuple[Literal["short", "long"], TableCaptioner]]:
        """(kind, captioner) of the kinds that are read from tables."""
        return [(kind, chosen) for kind in _KINDS if isinstance(chosen := getattr(self, kind), TableCaptioner)]

    @property
    def columns(self) -> list[tuple[Literal["short", "long"], ColumnCaptioner]]:
        """(kind, captioner) of the kinds that are read from columns of the sources."""
        return [(kind, chosen) for kind in _KINDS if isinstance(chosen := getattr(self, kind), ColumnCaptioner)]
