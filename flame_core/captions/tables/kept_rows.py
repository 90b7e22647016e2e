"""Rows of a `captioner: column`: the columns that sources keep in `data/raw`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from flame_core.captions.tables.rows import Counts, Match, NamedText, pair_name
from flame_core.data.shards import Index
from flame_core.data.sources import Problem
from flame_core.data.sources.accounting import Problems
from flame_core.data.sources.kept_columns import read_column
from flame_core.data.sources.keys import safe_key
from flame_core.data.sources.listing import KEPT_COLUMNS, PAIRS
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import ColumnCaptioner, Source
from flame_core.verification import read_digests, verify


class KeptRows:
    """The rows of all sources that keep a column, by the keys of the samples and their pictures.

    Raises:
        InputError: a source's columns or list are missing or damaged.
    """

    def __init__(self, params: ColumnCaptioner, sources: Mapping[str, Source], layout: Layout) -> None:
        self._params = params
        self.match: Match = "pair"
        self.language, self.max_chars = params.language, params.max_caption_chars
        keeping = [name for name, each in sorted(sources.items()) if params.column in getattr(each, "keep_columns", ())]
        self._raw = {name: layout.raw / name for name in keeping}
        digests = read_digests(layout.raw)
        files = [f"{name}/{file}" for name in keeping for file in (KEPT_COLUMNS, PAIRS)]
        for file in files:
            if file not in digests:
                raise InputError(f"{layout.raw / file} is missing: run `flame download` first")
        verify({layout.raw: files})
        self.sha256 = {name: digests[f"{name}/{KEPT_COLUMNS}"] for name in keeping}
        pairs = {name: digests[f"{name}/{PAIRS}"] for name in keeping}
        self.inputs = {"columns": self.sha256, "pairs": pairs, "params": params.model_dump()}

    def read(self, scratch: Path, problems: list[Problem]) -> Iterator[tuple[str | None, Iterator[NamedText]]]:
        """The rows of each source whose pairs have a picture."""
        for source, raw in self._raw.items():
            yield source, self._rows(source, raw)

    def _rows(self, source: str, raw: Path) -> Iterator[NamedText]:
        for key, sha256, value in read_column(raw, self._params.column):
            if sha256 is not None:
                yield pair_name(safe_key(f"{source}/{key}"), sha256), value

    def nothing(self, index: Index, counts: Counts, first: str, problems: Problems) -> str:
        """Why no sample has a text."""
        return (
            f"no sample has a text in {self._params.language!r} in the column {self._params.column!r} that "
            f"{' and '.join(self._raw)} keeps: see `column` and `language`"
        )
