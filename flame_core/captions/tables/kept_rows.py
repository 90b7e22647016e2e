"""Rows of a `captioner: column`: the columns that sources keep in `data/raw`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from flame_core.captions.tables.rows import Counts, Match, NamedText
from flame_core.data.shards import Index
from flame_core.data.sources import Problem
from flame_core.data.sources.accounting import Problems
from flame_core.data.sources.kept_columns import read_column
from flame_core.data.sources.keys import safe_key
from flame_core.data.sources.listing import KEPT_COLUMNS
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import ColumnCaptioner, Source


class KeptRows:
    """The rows of all sources that keep a column, by the keys of the samples.

    Raises:
        InputError: a source's columns are missing.
    """

    def __init__(
        self, params: ColumnCaptioner, sources: Mapping[str, Source], layout: Layout, sha256: Callable[[Path], str]
    ) -> None:
        self._params = params
        self.match: Match = "key"
        self.language, self.max_chars = params.language, params.max_caption_chars
        keeping = [name for name, each in sorted(sources.items()) if params.column in getattr(each, "keep_columns", ())]
        self._files = {name: layout.raw / name / KEPT_COLUMNS for name in keeping}
        for path in self._files.values():
            if not path.is_file():
                raise InputError(f"{path} is missing: run `flame download` first")
        self.sha256 = {name: sha256(path) for name, path in self._files.items()}
        self.inputs = {"columns": self.sha256, "params": params.model_dump()}

    def read(self, scratch: Path, problems: list[Problem]) -> Iterator[tuple[str | None, Iterator[NamedText]]]:
        """The rows of each source."""
        for source, path in self._files.items():
            rows = read_column(path, self._params.column)
            yield source, ((safe_key(f"{source}/{key}"), value) for key, value in rows)

    def nothing(self, index: Index, counts: Counts, first: str, problems: Problems) -> str:
        """Why no sample has a text."""
        return (
            f"no sample has a text in {self._params.language!r} in the column {self._params.column!r} that "
            f"{' and '.join(self._files)} keeps: see `column` and `language`"
        )
