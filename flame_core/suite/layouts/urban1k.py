"""Urban-1k: `image/<number>.jpg` and `caption/<number>.txt`, whose first line is the caption (Long-CLIP)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flame_core.files.regular_files import is_hidden
from flame_core.suite.content import Captioned, Skips
from flame_core.suite.definition import Benchmark
from flame_core.suite.layouts.captions import CaptionRow, captioned
from flame_core.suite.layouts.reading import HIDDEN, by_stem, existing, pictures_below, read_text


def read(benchmark: Benchmark, folder: Path, split: str) -> Captioned:
    """Its content, in the order of the captions' names; the data set has one split."""
    images = existing(folder / (benchmark.data.images or "image"))
    texts = existing(folder / (benchmark.data.annotations or "caption"))
    pictures = by_stem(pictures_below(images, Skips()))  # `captioned` counts what is skipped there
    skips = Skips()

    def rows() -> Iterator[CaptionRow]:
        for path in sorted(texts.glob("*.txt")):
            if is_hidden(path.name):
                skips.add(HIDDEN, path.name)
                continue
            line = read_text(path).partition("\n")[0].strip()
            image = pictures.get(path.stem, images / f"{path.stem}.jpg")
            yield CaptionRow(path.stem, image, benchmark.languages[0], [line] if line else [])

    return captioned(benchmark, rows(), images, skips)
