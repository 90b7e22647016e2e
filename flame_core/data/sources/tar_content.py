"""Reads the samples of a webdataset tar: their pictures as byte ranges, their texts and records.

A sample is all members of a tar with one key: a picture (`jpg`, `png`, ..., see `picture_kinds.py`), a caption (`txt`
or `caption`) and a JSON object (`json`, see `record.py`); `tar_samples.py` groups the members. A compressed tar cannot
be used, since pictures are read by their place in it. A truncated or damaged tar gives all samples that can be read,
and becomes a problem; members that belong to no sample are counted by kind.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from flame_core.data.sources import ImageRef, Problem
from flame_core.data.sources.accounting import Unused
from flame_core.data.sources.manifest import LARGEST_PICTURE, LARGEST_TEXT
from flame_core.data.sources.record import read_object
from flame_core.data.sources.tar_headers import Member, read_members
from flame_core.data.sources.tar_samples import CAPTIONED, Parts, group_members
from flame_core.data.text_files import TextError, decode_text
from flame_core.files.regular_files import open_regular
from flame_core.names import printable

_COMPRESSED = {
    b"\x1f\x8b": "gzip (gunzip)",
    b"BZh": "bzip2 (bunzip2)",
    b"\xfd7zXZ\0": "xz (unxz)",
    b"\x28\xb5\x2f\xfd": "zstd (unzstd)",
    b"\x04\x22\x4d\x18": "lz4 (unlz4)",
    b"PK\x03\x04": "zip (unzip, then tar)",
}
_LOGGED = 5  # problems of a tar that are logged one by one
log = logging.getLogger(__name__)


@dataclass
class TarSample:
    """The contents of a sample; a tar with two pictures under one key gives one sample per picture."""

    key: str
    image: ImageRef | None = None
    texts: list[str] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    unread: str | None = None  # a member in the picture's place that cannot be read


def read_samples(
    folder: Path, shard: str, problems: list[Problem], unused: Unused, encoding: str = "utf-8"
) -> Iterator[TarSample]:
    """The samples of a tar, in order. Damaged parts are left out and become problems that name tar and member."""
    found = len(problems)

    def damaged(detail: str) -> None:
        problems.append(Problem(shard, "damaged_file", detail))

    try:
        with open_regular(folder / shard) as file:
            start = file.read(8)
            packed = next((said for magic, said in _COMPRESSED.items() if start.startswith(magic)), None)
            if packed:
                told = f"compressed with {packed}: unpack it, since pictures are read by their place in the tar"
                problems.append(Problem(shard, "compressed_file", told))
            else:
                for parts in group_members(shard, read_members(file, damaged), problems, unused):
                    yield from _read(file, folder / shard, shard, parts, problems, encoding)
    except OSError as error:
        problems.append(Problem(shard, "unreadable_file", error.strerror or str(error)))
    for problem in problems[found : found + _LOGGED]:
        log.warning("%s: %s", folder / problem.file, problem.detail)
    if len(problems) > found + _LOGGED:
        log.warning("%s: and more, listed in source.json", folder / shard)


def _read(
    file: BinaryIO, path: Path, shard: str, parts: Parts, problems: list[Problem], encoding: str
) -> Iterator[TarSample]:
    """The samples of these parts, one per picture, each with all captions; ingest keeps the first good one."""
    texts: list[str] = []
    records: list[dict[str, Any]] = []
    images: list[ImageRef] = []
    unread = parts.unread
    for kind, member in parts.members.items():
        name = printable(f"{shard}/{member.name}")
        largest = LARGEST_TEXT if kind in CAPTIONED else LARGEST_PICTURE
        if member.size > largest:
            told = f"has {member.size:,} bytes, more than the {largest:,} that are read"
            problems.append(Problem(name, "damaged_member", told))
            unread = name if kind not in CAPTIONED else unread
            continue
        content = _content(file, member)
        if kind not in CAPTIONED:
            images.append(ImageRef(path, member.offset, member.size, hashlib.sha256(content).hexdigest()))
            continue
        try:
            if kind != "json":
                texts.append(decode_text(content, encoding))
            else:
                records.append(read_object(content, encoding))
        except TextError as error:
            problems.append(Problem(name, "damaged_text" if kind != "json" else "damaged_member", str(error)))
    for image in images:
        yield TarSample(parts.key, image, texts, records)
    if not images:
        yield TarSample(parts.key, None, texts, records, unread)


def _content(file: BinaryIO, member: Member) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)
