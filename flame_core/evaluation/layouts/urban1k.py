"""Urban-1k: `image/<number>.jpg` and `caption/<number>.txt`, of which the first line is the caption (Long-CLIP)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flame_core.evaluation.content import Captioned
from flame_core.evaluation.definition import Benchmark
from flame_core.evaluation.layouts.reading import captioned, existing, pictures_below


def read(benchmark: Benchmark, folder: Path, split: str) -> Captioned:
    """Its content, by the names of the captions; the data set has one split."""
    images = existing(folder / (benchmark.data.images or "image"))
    texts = existing(folder / (benchmark.data.annotations or "caption"))
    by_stem = {path.stem: path for path in pictures_below(images)}

    def rows() -> Iterator[tuple[str, Path, str, list[str]]]:
        for path in sorted(texts.glob("*.txt")):
            with path.open(encoding="utf-8") as file:
                line = file.readline().strip()
            image = by_stem.get(path.stem, images / f"{path.stem}.jpg")
            yield path.stem, image, benchmark.languages[0], [line] if line else []

    return captioned(benchmark, rows(), images)
