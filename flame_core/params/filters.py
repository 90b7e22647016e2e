"""`ingest.filters`: which pairs are not wanted. Every rule is null by default and counted by its reason."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from flame_core.names import LanguageCode
from flame_core.params.section import Positive, Section

# As far as they are rules about single pairs. Measured on the source's picture, before `max_side`.
PRESETS: dict[str, dict[str, Any]] = {
    # DataComp's basic filtering: English, more than 2 words and 5 characters, short side of 200, aspect of at most 3.
    "datacomp-basic": {
        "language": {"keep": ["en"]},
        "min_words": 3,
        "min_characters": 6,
        "min_side": 200,
        "max_aspect": 3.0,
    },
    # CC12M's rules of words and aspect; those of parts of speech, of names and of unwanted content are not here.
    "cc12m": {"min_words": 3, "max_words": 256, "max_aspect": 2.5},
}


class LanguageFilter(Section):
    """Languages of captions, as py3langid sees them; a caption of less than 25 characters is never judged."""

    keep: list[LanguageCode] = Field(min_length=1, description="codes of the languages that are kept")
    among: list[LanguageCode] | None = Field(
        default=None, description="languages that are expected at all, which makes it surer; null: all 97"
    )


class ScoreFilter(Section):
    """Bounds of a column that the source keeps (`keep_columns`)."""

    column: str = Field(description="a column that the source keeps (`keep_columns`)")
    min: float | None = Field(default=None, description="lowest value that is kept; null: any")
    max: float | None = Field(default=None, description="highest value that is kept; null: any")
    missing: Literal["drop", "keep"] = Field(default="drop", description="pairs without a value")


class LicenceFilter(Section):
    """Licences of pairs, compared without case."""

    keep: list[str] = Field(min_length=1, description="licences that are kept")
    unknown: Literal["drop", "keep"] = Field(default="drop", description="pairs without a licence")


class BlurParams(Section):
    """Boxes of pictures, such as faces, that are blurred before anything is stored in a shard."""

    column: str = Field(
        default="face_bboxes",
        description="a column that the source keeps (`keep_columns`): [[left, top, right, bottom], ...] as shares",
    )
    missing: Literal["keep", "drop"] = Field(default="keep", description="pairs without a value")


class NearDuplicateFilter(Section):
    """Training pictures that look like each other: one of a group is kept, with the captions of all."""

    distance: int = Field(default=4, ge=0, le=12, description="bits of 64 in which two perceptual hashes may differ")
    placeholder_over: Positive = Field(
        default=1000, description="pairs with one hash, above which it is no picture of anything: all are dropped"
    )


class PairFilterParams(Section):
    """Rules about single pairs. Captions are left out one by one, and a pair with the last of them."""

    preset: Literal["datacomp-basic", "cc12m"] | None = Field(
        default=None, description="rules of a known data set; those written here replace them"
    )
    language: LanguageFilter | None = Field(
        default=None, description="languages that captions are written in; null: any"
    )
    min_words: Positive | None = Field(default=None, description="of a caption; null: any number")
    max_words: Positive | None = Field(default=None, description="of a caption; null: any number")
    min_characters: Positive | None = Field(default=None, description="of a caption; null: any number")
    max_characters: Positive | None = Field(default=None, description="of a caption; null: any number")
    min_side: Positive | None = Field(default=None, description="pixels of the shorter side")
    max_aspect: float | None = Field(default=None, ge=1, description="longer side over shorter side; null: any")
    scores: list[ScoreFilter] = Field(default=[], description="bounds of columns of the source")
    licences: LicenceFilter | None = Field(default=None, description="which licences are kept; null: all")
    near_duplicates: NearDuplicateFilter | None = Field(
        default=None, description="about training pictures together; all other rules are about one pair each"
    )

    @model_validator(mode="before")
    @classmethod
    def _with_the_preset(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("preset") in PRESETS:
            return {**PRESETS[given["preset"]], **given}
        return given
