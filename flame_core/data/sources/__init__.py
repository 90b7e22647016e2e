"""Sources of image-text pairs, behind one protocol.

A source looks at its data as they are now and leaves a folder `data/raw/<name>/`: the list of its pairs
(`listing.py`), `source.json`, and the pictures themselves unless they already lie on this machine (`folder`,
`webdataset`), in which case they stay where they are and a manifest of them is kept.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import DebianSource, FolderSource, Source, WebdatasetSource
from flame_core.regular_files import open_regular
from flame_core.work import Unit, WorkCache


@dataclass(frozen=True)
class ImageRef:
    """Where a picture's bytes are: `size` bytes from `offset` of a file."""

    path: Path
    offset: int
    size: int
    sha256: str  # of those bytes

    def read(self) -> bytes:
        """The picture's bytes.

        Raises:
            InputError: they are not those that `flame download` saw.
        """
        try:
            with open_regular(self.path) as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror}; it was there when `flame download` listed it") from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise InputError(
                f"{self.path}: {self.size} bytes at {self.offset} are not those that `flame download` listed; "
                "restore the file, or run `flame download` again to take it as it is now"
            )
        return content


@dataclass(frozen=True)
class RawPair:
    """A pair as its source gives it, before anything is checked. `image` is None where the picture is missing."""

    key: str  # of the characters A-Z a-z 0-9 _ - /; sources leave it to ingest to refuse one that comes twice
    image: ImageRef | None
    captions: dict[str, list[str]]  # language -> texts
    title: str | None = None
    keywords: list[str] = field(default_factory=list)
    category: str | None = None  # a path such as animals/birds
    licence: str | None = None
    group: str | None = None  # decides the split instead of the caption
    split: str | None = None  # fixed by the source: train, val, or another word, under which the pair is left out
    unread: str | None = None  # where `image` is None: the file in the picture's place, which cannot be read
    missing: str | None = None  # where `image` is None: what else is known of it, for people


@dataclass(frozen=True)
class Problem:
    """A file, member or row of a source that could not be read, or only in part."""

    file: str
    reason: str
    detail: str
    count: int = 1  # how many it stands for


class PairSource(Protocol):
    """What every kind of source does."""

    def download(self, work: WorkCache) -> Unit:
        """The unit whose folder is `data/raw/<name>/`, for the source as it is now.

        Raises:
            InputError: the source is absent or holds nothing.
            ResourceError: a program, the network or room on the disk is missing.
        """
        ...

    def pictures(self, raw: Path) -> Path:
        """The folder that the listed files are relative to."""
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
