"""CLIP_benchmark's webdataset folders: `<split>/nshards.txt`, `<split>/<n>.tar`, and what the pictures show.

Classification: a `cls` for each picture, `classnames.txt`, `zeroshot_classification_templates.txt`. Retrieval: a `txt`
with one caption per line. The tars are scanned once for the offsets of their members and never unpacked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from flame_core.data.sources.tar_headers import Member, read_members
from flame_core.data.text_files import TextError, decode_text
from flame_core.errors import InputError
from flame_core.files.regular_files import is_hidden
from flame_core.names import printable
from flame_core.suite.content import Captioned, Labelled, NotAvailable, Picture, Skips
from flame_core.suite.definition import Benchmark
from flame_core.suite.layouts.class_names import NAMES, class_names, read_lines, read_templates
from flame_core.suite.layouts.reading import (
    HIDDEN,
    NO_CAPTION,
    NO_PICTURE,
    existing,
    is_picture,
    read_text,
)
from flame_core.suite.tasks import TASKS

_LARGEST_TEXT = 1 << 20  # bytes of a `cls` or `txt`
_GZIP = b"\x1f\x8b"


@dataclass
class _Sample:
    """The members of a tar with one key."""

    name: str
    picture: Picture | None = None
    text: str | None = None


def read(benchmark: Benchmark, folder: Path, split: str) -> Captioned | Labelled:
    """Its content: labels if the samples have a `cls`, captions if they have a `txt`.

    Raises:
        NotAvailable: a file is missing, or there are fewer than two classes.
        InputError: a tar is damaged or cut off, a key occurs twice in it, or labels and names do not fit.
    """
    place = existing(folder / split / "nshards.txt")
    try:
        count = int(read_text(place).strip())
    except ValueError:
        raise InputError(f"{place}: must hold the number of shards") from None
    pictures: list[Picture] = []
    captions: list[tuple[int, str]] = []
    labels: list[int] = []
    skips = Skips()
    retrieval = TASKS[benchmark.task.kind].wanted is Captioned
    for number in range(count):
        path = existing(folder / split / f"{number}.tar")
        for sample in _samples(path, ".txt" if retrieval else ".cls", skips):
            if sample.picture is None:
                skips.add(NO_PICTURE if retrieval else "classes whose picture is missing", sample.name)
            elif not sample.text or not sample.text.strip():
                skips.add(NO_CAPTION if retrieval else "pictures without a class", sample.name)
            elif retrieval:
                lines = [line.strip() for line in sample.text.splitlines() if line.strip()]
                captions += [(len(pictures), line) for line in lines]
                pictures.append(sample.picture)
            else:
                labels.append(_label(sample.text, f"{path}, sample {sample.name}"))
                pictures.append(sample.picture)
    if retrieval:
        return Captioned(pictures, {benchmark.languages[0]: captions}, skips)
    own = read_lines(folder / NAMES)
    if not own:
        raise InputError(f"{folder / NAMES}: missing or empty")
    if len(own) < 2:
        raise NotAvailable(f"{folder / NAMES} does not name two classes or more")
    if labels and max(labels) >= len(own):
        raise InputError(f"{folder / NAMES}: {len(own)} class names, but a label is {max(labels)}")
    found = class_names(benchmark, folder, own, len(own), skips)
    if not found.templates and (rows := read_templates(folder / "zeroshot_classification_templates.txt")):
        found.templates = {benchmark.languages[0]: rows}
    return Labelled(
        pictures, np.array(labels, dtype=np.int64), found.names, found.templates, skips=skips, parts=found.parts
    )


def _label(text: str, place: str) -> int:
    try:
        label = int(text)
    except ValueError:
        label = -1
    if label < 0:
        raise InputError(f"{place}: class {text.strip()!r} is not a number from 0")
    return label


def _samples(path: Path, suffix: str, skips: Skips) -> list[_Sample]:
    """The samples of a tar in the order of their first members: a picture, and the content of the `suffix` member."""
    found: dict[str, _Sample] = {}
    faults: list[str] = []
    if not path.is_file():
        raise InputError(f"{path}: must be a file")
    with path.open("rb") as file:
        if file.read(2) == _GZIP:
            raise InputError(f"{path}: packed with gzip; unpack it, since pictures are read at their place in the tar")
        for member in read_members(file, faults.append):
            stem, dot, extension = member.name.rpartition(".")
            kind = dot + extension.lower()
            if member.folder:
                continue
            if any(is_hidden(part) and part not in (".", "..") for part in member.name.split("/")):
                skips.add(HIDDEN, member.name)
            elif not member.regular or not (kind == suffix or is_picture(member.name)):
                skips.add("members that are not used", member.name)
            else:
                _put(found.setdefault(stem, _Sample(stem)), member, path, None if kind != suffix else file)
    if faults:
        raise InputError(f"{path}: {faults[0]}; fetch it again")
    return list(found.values())


def _put(sample: _Sample, member: Member, path: Path, file: BinaryIO | None) -> None:
    """Add a member to its sample: the text, which is read from `file`, or the picture."""
    if (sample.picture if file is None else sample.text) is not None:
        raise InputError(
            f"{path}: the key {printable(sample.name)} has {printable(member.name)} and another member of that kind"
        )
    if file is None:
        sample.picture = Picture(sample.name, path, member.offset, member.size)
        return
    if member.size > _LARGEST_TEXT:
        raise InputError(f"{path}: {member.name} has {member.size:,} bytes, more than a text of {_LARGEST_TEXT:,}")
    file.seek(member.offset)
    try:
        sample.text = decode_text(file.read(member.size))
    except TextError as error:
        raise InputError(f"{path}: {member.name}: {error}; write it as UTF-8") from None
