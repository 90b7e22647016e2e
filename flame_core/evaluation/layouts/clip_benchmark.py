"""CLIP_benchmark's webdataset folders: `<split>/nshards.txt`, `<split>/<n>.tar`, and what the pictures show.

Classification: a `cls` beside each picture, `classnames.txt`, `zeroshot_classification_templates.txt`. Retrieval:
a `txt` with one caption a line. The tars are scanned once for the offsets of their members and never unpacked.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flame_core.errors import InputError
from flame_core.evaluation.content import Captioned, Labelled, Picture, Skips
from flame_core.evaluation.definition import Benchmark
from flame_core.evaluation.layouts.class_names import class_names, read_lines
from flame_core.evaluation.layouts.reading import NO_CAPTION, NO_PICTURE, SUFFIXES, existing

_MEMBER = re.compile(r"^((?:.*/)?[^./][^.]*)\.([^/]+)$")  # sample and extension, as webdataset cuts them


def read(benchmark: Benchmark, folder: Path, split: str) -> Captioned | Labelled:
    """Its content: labels where the samples have a `cls`, captions where they have a `txt`."""
    place = existing(folder / split / "nshards.txt")
    try:
        count = int(place.read_text().strip())
    except ValueError:
        raise InputError(f"{place}: must hold the number of shards") from None
    pictures: list[Picture] = []
    captions: list[tuple[int, str]] = []
    labels: list[int] = []
    skips = Skips()
    retrieval = benchmark.task.kind == "retrieval"
    for number in range(count):
        for name, picture, text in _samples(existing(folder / split / f"{number}.tar"), "txt" if retrieval else "cls"):
            if picture is None:
                skips.add(NO_PICTURE, name)
            elif not text or not text.strip():
                skips.add(NO_CAPTION if retrieval else "pictures without a class", name)
            elif retrieval:
                captions += [(len(pictures), line.strip()) for line in text.splitlines() if line.strip()]
                pictures.append(picture)
            else:
                labels.append(_label(text, f"{folder / split}/{number}.tar, sample {name}"))
                pictures.append(picture)
    if retrieval:
        return Captioned(pictures, {benchmark.languages[0]: captions}, skips)
    own = read_lines(folder / "classnames.txt")
    if not own:
        raise InputError(f"{folder / 'classnames.txt'}: missing or empty")
    if labels and max(labels) >= len(own):
        raise InputError(f"{folder / 'classnames.txt'}: {len(own)} class names, but a label is {max(labels)}")
    names, templates = class_names(benchmark, folder, own, len(own))
    if not templates and (rows := read_lines(folder / "zeroshot_classification_templates.txt")):
        templates = {benchmark.languages[0]: rows}
    return Labelled(pictures, np.array(labels, dtype=np.int64), names, templates, skips)


def _label(text: str, place: str) -> int:
    try:
        label = int(text)
    except ValueError:
        label = -1
    if label < 0:
        raise InputError(f"{place}: class {text.strip()!r} is not a number from 0")
    return label


def _samples(path: Path, suffix: str) -> Iterator[tuple[str, Picture | None, str | None]]:
    """(name, picture, content of the member with `suffix`) of each sample of a tar; members of one stand together."""
    name, picture, text = "", None, None
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                parts = _MEMBER.match(member.name)
                if not member.isfile() or not parts:
                    continue
                stem, extension = parts.groups()
                if stem != name:
                    if name:
                        yield name, picture, text
                    name, picture, text = stem, None, None
                if f".{extension.lower()}" in SUFFIXES:
                    picture = Picture(stem, path, member.offset_data, member.size)
                elif extension == suffix:
                    file = tar.extractfile(member)
                    text = file.read().decode("utf-8") if file else None
    except (tarfile.TarError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: damaged at sample {name or '(start)'} ({error})") from None
    if name:
        yield name, picture, text
