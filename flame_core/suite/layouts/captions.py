"""Turns rows of (picture, language, texts), as in retrieval data, into content, and counts what is not used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flame_core.suite.content import Captioned, Picture, Skips
from flame_core.suite.definition import Benchmark
from flame_core.suite.layouts.reading import NO_CAPTION, NO_PICTURE, is_drawing, pictures_below

OTHER_SPLIT = "entries of other splits"


@dataclass(frozen=True)
class CaptionRow:
    """A picture's captions in a language; the language is None if the data do not name one."""

    name: str
    path: Path
    language: str | None
    texts: list[str]


def captioned(
    benchmark: Benchmark, rows: Iterable[CaptionRow], images: Path | None = None, skips: Skips | None = None
) -> Captioned:
    """The content of rows: their captions in the benchmark's languages.

    The pictures keep the order in which they first occur. Counted in `skips`: captions in other languages or without
    one, rows whose picture is missing or an SVG, and pictures below `images` that no row names.
    """
    numbers: dict[str, int] = {}
    pictures: list[Picture] = []
    captions: dict[str, list[tuple[int, str]]] = {language: [] for language in benchmark.languages}
    skips = Skips() if skips is None else skips
    named: set[Path] = set()
    for row in rows:
        named.add(row.path)
        if row.language not in captions:
            missing = row.language is None
            reason = "captions without a language" if missing else "captions in languages that the benchmark lacks"
            skips.add(reason, row.name if missing else f"{row.name} ({row.language})", max(1, len(row.texts)))
            continue
        if row.name not in numbers and not row.path.is_file():
            skips.add(NO_PICTURE, row.name)
            continue
        if is_drawing(row.path.name):
            skips.add("captions of SVG pictures, which models do not open", row.name)
            continue
        if not row.texts:
            skips.add(NO_CAPTION, row.name)
            continue
        if row.name not in numbers:
            numbers[row.name] = len(pictures)
            pictures.append(Picture(row.name, row.path))
        captions[row.language] += [(numbers[row.name], text) for text in row.texts]
    for path in pictures_below(images, skips) if images else []:
        if path not in named:
            skips.add(NO_CAPTION, path.name)
    return Captioned(pictures, captions, skips)
