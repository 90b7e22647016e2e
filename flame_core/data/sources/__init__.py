"""Sources of image-text pairs, behind one protocol.

A source fetches what it needs into `data/raw/<name>/` (`download`) and then lists pairs from there (`pairs`).
Where the bytes already lie on this machine (`folder`, `webdataset`), `download` writes a manifest of them and
`pairs` reads them in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flame_core.data.shards import Split
from flame_core.layout import Layout
from flame_core.params import DebianSource, FolderSource, Source, WebdatasetSource


@dataclass(frozen=True)
class ImageRef:
    """Where a picture's bytes are: a file, or a range of one."""

    path: Path
    offset: int = 0
    size: int | None = None  # None: to the end of the file

    def read(self) -> bytes:
        """The picture's bytes."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(-1 if self.size is None else self.size)


@dataclass(frozen=True)
class RawPair:
    """A pair as its source gives it, before anything is checked. `image` is None where the picture is missing."""

    key: str  # unique in the source, of the characters A-Z a-z 0-9 _ - /
    image: ImageRef | None
    captions: dict[str, list[str]]  # language -> texts
    title: str | None = None
    keywords: list[str] = field(default_factory=list)
    category: str | None = None  # a path such as animals/birds
    licence: str | None = None
    group: str | None = None  # decides the split instead of the caption
    split: Split | None = None  # fixed by the source


class PairSource(Protocol):
    """What every kind of source does."""

    def download(self, raw: Path) -> dict[str, object]:
        """Fetch into the empty folder `raw`; returns facts (packages, versions, licences) for `source.json`."""
        ...

    def pairs(self, raw: Path) -> Iterator[RawPair]:
        """List the pairs in a fixed order, from what `download` left in `raw`."""
        ...


def open_source(params: Source, layout: Layout) -> PairSource:
    """The source that `params` describe."""
    match params:
        case DebianSource():
            from flame_core.data.sources.debian import Debian

            return Debian(params)
        case FolderSource():
            from flame_core.data.sources.folder import Folder

            return Folder(params, layout.resolve(params.path))
        case WebdatasetSource():
            from flame_core.data.sources.webdataset import Webdataset

            return Webdataset(params, layout.resolve(params.path))
