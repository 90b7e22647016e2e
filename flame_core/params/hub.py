"""`kind: hub` in `sources`: a data set of the Hugging Face hub, as webdataset tars or parquet with pictures in it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from flame_core.names import LanguageCode, require_hub_id, require_revision
from flame_core.params.section import Positive, Section


class HubSource(Section):
    """A data set of the Hugging Face hub. A token comes from the environment (`HF_TOKEN`), never from params."""

    kind: Literal["hub"]
    repo: Annotated[str, AfterValidator(require_hub_id)] = Field(description="<owner>/<name> of the data set")
    revision: Annotated[str, AfterValidator(require_revision)] = Field(
        description="a commit, which is always the same data; a branch or tag is looked up whenever the stage runs"
    )
    files: list[str] = Field(
        default=["*.tar", "*.parquet"], min_length=1, description="patterns of the files to use; * also matches /"
    )
    val_files: str | None = Field(
        default=None, min_length=1, description="pattern of the files that form the validation split"
    )
    image_column: str = Field(default="image", description="of parquet: bytes, or {bytes, path}")
    caption_column: str = Field(
        default="caption", description="of parquet, or a tar's JSON: a text, a list, or {language: text or list}"
    )
    language: LanguageCode = Field(default="en", description="language of captions that do not name one")
    group_field: str | None = Field(default=None, description="whose value decides the split instead of the caption")
    licence: str | None = Field(default=None, description="by default that of the data set's card")
    keep_columns: list[str] = Field(
        default=[],
        description="columns of parquet, or fields of a tar's JSON, for `ingest.filters`, such as scores, and for a "
        "`captioner: column`",
    )
    max_samples: Positive | None = Field(
        default=None, description="only the first samples of each split; files behind them are not fetched"
    )
