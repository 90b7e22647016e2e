"""`sources`: where image-text pairs come from, one model per kind of source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from flame_core.names import LanguageCode
from flame_core.params.hub import HubSource
from flame_core.params.section import Positive, Section, refuse
from flame_core.params.urls import OF_ALL_PAIRS, UrlsSource


class DebianSource(Section):
    """Image-text pairs inside Debian packages, fetched with `apt-get download` (no root, nothing installed)."""

    kind: Literal["debian"]
    packages: list[Literal["tuxpaint-stamps-default", "openclipart-png"]] = Field(
        min_length=1, description="Debian packages of pictures"
    )


def _encoding(name: str) -> str:
    """`name`, if it is the name of a text encoding."""
    try:
        "a".encode(name)  # an empty text is encoded without a look at the name
    except (LookupError, ValueError):
        raise ValueError(
            f"{name!r} is not a text encoding; use utf-8, cp1252, utf-16 or latin-1, for example"
        ) from None
    return name


Delimiter = Literal[",", ";", "\t", "|"]
Encoding = Annotated[str, AfterValidator(_encoding), Field(description="of texts and tables without a byte order mark")]


class _LocalSource(Section):
    """A source that is read in place."""

    keep_columns: list[str] = Field(
        default=[],
        description="fields of records or columns of a table for `ingest.filters`, such as scores, and for a "
        "`captioner: column`",
    )

    @property
    def identity(self) -> dict[str, Any]:
        """What its list depends on beside the files; fields that came later count if they are set."""
        unset = {name for name in ("keep_columns", "columns", "split") if not getattr(self, name, None)}
        return self.model_dump(exclude={"path", *unset})


def _here(path: str) -> str:
    """`path`, if it is no address."""
    if "://" in path:
        raise ValueError("a source of kind folder is on this machine; shards in a bucket are of kind webdataset")
    return path


_WITH_COLUMNS = (".json", ".jsonl", ".parquet")  # tables that name their columns


class FolderSource(_LocalSource):
    """A folder of pictures with captions beside them (`.txt`, `.caption`, `.json`) or in one table."""

    kind: Literal["folder"]
    path: Annotated[str, AfterValidator(_here)] = Field(description="folder of the pictures")
    table: str | None = Field(
        default=None,
        description="file with the captions, relative to `path`: .csv, .tsv, .jsonl, .parquet, .json as published for "
        "COCO, Karpathy's splits and others, or a delimited .txt or .token",
    )
    delimiter: Delimiter | None = Field(
        default=None, description="of a delimited text; by default the one that makes the header contain the columns"
    )
    columns: list[str] | None = Field(
        default=None,
        min_length=2,
        description="names of the columns of a delimited text without a header, such as [image, caption]",
    )
    encoding: Encoding = "utf-8"
    image_column: str = Field(
        default="image", description="column of `table` with file names, or in parquet with pictures"
    )
    caption_column: str = Field(
        default="caption", description="column of `table` with a text, a list of texts, or {language: texts}"
    )
    language: LanguageCode = Field(default="en", description="language of captions that do not name one")
    group_field: str | None = Field(
        default=None, description="field whose value decides the split instead of the caption"
    )
    split: Literal["train", "val"] | None = Field(default=None, description=OF_ALL_PAIRS)
    folders_are_categories: bool = Field(
        default=False,
        description="whether the folders above a picture name its category (animals/birds), which captions say and "
        "zero-shot classification measures; by default only a field `category` does",
    )
    licence: str | None = Field(default=None, description="of the pictures; it is stored with each sample")
    links: Literal["inside", "anywhere"] = Field(
        default="inside", description="which symbolic links are followed: those that stay inside `path`, or all"
    )

    @model_validator(mode="after")
    def _fitting_columns(self, info: ValidationInfo) -> FolderSource:
        faults: list[tuple[tuple[str, ...], str]] = []
        if self.table is not None and self.image_column in self.keep_columns:
            said = f"{self.image_column!r} is the column of the pictures (`image_column`), which is not kept"
            faults.append((("keep_columns",), said))
        refuse([*faults, *self._column_faults()], info)
        return self

    def _column_faults(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """What does not fit `columns`, if they are given."""
        if self.columns is None:
            return
        if self.table is None:
            yield ("columns",), "names the columns of a `table`, and there is none"
        elif PurePosixPath(self.table).suffix.lower() in _WITH_COLUMNS:
            yield ("columns",), f"{self.table} names its columns itself: leave `columns` out"
        if len(set(self.columns)) < len(self.columns):
            yield ("columns",), "names a column twice"
        for key in ("image_column", "caption_column", "group_field"):
            if (name := getattr(self, key)) is not None and name not in self.columns:
                yield (key,), f"{name!r} is not one of `columns`: {', '.join(self.columns)}"
        if absent := [name for name in self.keep_columns if name not in self.columns]:
            yield ("keep_columns",), f"{absent[0]!r} is not one of `columns`: {', '.join(self.columns)}"


def _pattern(value: str) -> str:
    """`value`, if it is a glob pattern of files below a folder."""
    parts = value.split("/")
    if value.startswith("/") or ".." in parts:
        raise ValueError("shards must be a pattern of files in `path`, such as *.tar: not absolute, without ..")
    if not value.strip() or "\0" in value or set(parts) <= {"", "."}:
        raise ValueError("shards must be a pattern of files, such as *.tar or sub/*.tar")
    if any("**" in part and part != "**" for part in parts):
        raise ValueError("shards: ** stands for folders and must be a whole part of the pattern, as in **/*.tar")
    return value


class WebdatasetSource(_LocalSource):
    """Existing shards: tars with a picture (`jpg`, `png`, ...) and `txt`, `caption` or `json` for each key."""

    kind: Literal["webdataset"]
    path: str = Field(description="folder of the shards, or its address in a bucket (s3://bucket/folder)")
    shards: Annotated[str, AfterValidator(_pattern)] = Field(default="*.tar", description="which files in it")
    val_shards: str | None = Field(
        default=None, min_length=1, description="pattern of the shards that form the validation split"
    )
    max_samples: Positive | None = Field(
        default=None, description="only the first samples of each split, in shard order"
    )
    caption_field: str = Field(
        default="captions", description="JSON field: a text, a list, or {language: text or list}"
    )
    encoding: Encoding = "utf-8"
    language: LanguageCode = Field(default="en", description="language of captions that do not name one")
    group_field: str | None = Field(
        default=None, description="JSON field whose value decides the split instead of the caption"
    )
    licence: str | None = Field(default=None, description="of the pictures; it is stored with each sample")


Source = Annotated[DebianSource | FolderSource | HubSource | UrlsSource | WebdatasetSource, Field(discriminator="kind")]
