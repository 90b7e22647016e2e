"""Sources of image-text pairs, with one protocol.

A source reads its data in their present state and writes a folder `data/raw/<name>/`: the list of its pairs
(`listing.py`), `source.json`, and the pictures. Pictures that are already on this machine (`folder`, `webdataset`) are
not copied; a manifest records them instead.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flame_core.data.buckets.bucket import is_address
from flame_core.errors import InputError
from flame_core.files.regular_files import open_regular
from flame_core.layout import Layout
from flame_core.params import DebianSource, FolderSource, HubSource, Source, UrlsSource, WebdatasetSource
from flame_core.work import Unit, WorkCache


@dataclass(frozen=True)
class ImageRef:
    """The place of a picture's bytes: `size` bytes at `offset` of a file."""

    path: Path
    offset: int
    size: int
    sha256: str  # of those bytes

    def read(self) -> bytes:
        """The picture's bytes.

        Raises:
            InputError: they changed since `flame download` listed them.
        """
        try:
            with open_regular(self.path) as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise InputError(
                f"{self.path}: {error.strerror}; it was readable when `flame download` listed it"
            ) from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise InputError(
                f"{self.path}: {self.size} bytes at {self.offset} changed since `flame download` listed them; "
                "restore the file, or run `flame download` again to use it as it is now"
            )
        return content


@dataclass(frozen=True)
class RawPair:
    """A pair as its source gives it, before any check. `image` is None if the picture is missing."""

    key: str  # of the characters A-Z a-z 0-9 _ - /; ingest refuses duplicates
    image: ImageRef | None
    captions: dict[str, list[str]]  # language -> texts
    title: str | None = None
    keywords: list[str] = field(default_factory=list)
    category: str | None = None  # a path such as animals/birds
    licence: str | None = None
    group: str | None = None  # decides the split instead of the caption
    split: str | None = None  # fixed by the source: train, val, or another word, which leaves the pair out
    unread: str | None = None  # if `image` is None: the unreadable file in the picture's place
    missing: str | None = None  # if `image` is None: what else is known about it, for people


@dataclass(frozen=True)
class Problem:
    """A file, member or row of a source that could not be read, or only partly."""

    file: str
    reason: str
    detail: str
    count: int = 1  # how many it stands for


class PairSource(Protocol):
    """The methods of every kind of source."""

    def download(self, work: WorkCache) -> Unit:
        """The unit whose folder becomes `data/raw/<name>/`, for the source as it is now.

        Raises:
            InputError: the source is missing or empty.
            ResourceError: a program, the network or disk space is missing.
        """
        ...

    def pictures(self, raw: Path) -> Path:
        """The folder to which the listed files are relative."""
        ...


def open_source(params: Source, layout: Layout, name: str) -> PairSource:
    """The source described by `params` under this name; it lists nothing that was forgotten (`forgotten.py`).

    Raises:
        InputError: the list of what was forgotten is damaged.
    """
    from flame_core.data.forgotten import read_forgotten

    forgotten = read_forgotten(layout.opt_out).of(name)
    match params:
        case DebianSource():
            from flame_core.data.sources.debian import Debian

            return Debian(params, forgotten)
        case FolderSource():
            from flame_core.data.sources.folder import Folder

            return Folder(params, layout.resolve(params.path), forgotten)
        case HubSource():
            from flame_core.data.sources.hub import Hub

            return Hub(params, forgotten)
        case UrlsSource():
            from flame_core.data.sources.urls import Urls

            lists = [layout.resolve(path) for path in params.opt_out.lists]
            return Urls(params, layout.resolve(params.path), lists, forgotten)
        case WebdatasetSource():
            from flame_core.data.sources.webdataset import Webdataset

            if is_address(params.path):
                from flame_core.data.sources.bucket_shards import BucketShards

                return BucketShards(params, forgotten)
            return Webdataset(params, layout.resolve(params.path), forgotten)
