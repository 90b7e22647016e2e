"""What rows of captions are: each names a sample and holds its texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from flame_core.data.shards import Index
from flame_core.data.sources import Problem
from flame_core.data.sources.accounting import Problems

Match = Literal["key", "url", "image", "sha256", "pair"]  # `pair`: the key and the sha256 of the picture (`pair_name`)
NamedText = tuple[str, Any]  # what a row calls its sample, and the value of its column of captions
Counts = Mapping[str, int]  # of rows by what became of them
_SAID = 3  # rows that cannot be read, named in a warning


class TextRows(Protocol):
    """Rows of captions that are there already.

    Attributes:
        match: what they call a sample.
        language: of the texts that are taken, and of those that name none.
        max_chars: longer texts are cut.
        sha256: of each file, by the name that the manifest has for it.
        inputs: what their texts follow from, for the digest of a unit.
    """

    match: Match
    language: str
    max_chars: int
    sha256: dict[str, str]
    inputs: dict[str, Any]

    def read(self, scratch: Path, problems: list[Problem]) -> Iterator[tuple[str | None, Iterator[NamedText]]]:
        """The rows of each file, and the source that it is about, if it is about one alone."""
        ...

    def nothing(self, index: Index, counts: Counts, first: str, problems: Problems) -> str:
        """Why no sample has a text; `first` is what the first row calls its sample."""
        ...


def pair_name(key: str, sha256: str) -> str:
    """What tells the pair that became a sample from others that have its key: a folder's bird.jpg and bird.png."""
    return f"{key} {sha256}"


def said_of(problems: Sequence[Problem]) -> str:
    """The first problems and the number of the others, for people."""
    said = "; ".join(f"{each.file}: {each.detail}" for each in problems[:_SAID])
    more = sum(each.count for each in problems[_SAID:])
    return f"{said}; and {more:,} more" if more else said
