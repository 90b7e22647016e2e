"""COCO and Flickr30k in Karpathy's JSON: {"images": [{"filename", "split", "sentences": [{"raw"}]}]}.

COCO's `filepath` is the folder of a picture below the folder of pictures. (Karpathy and Fei-Fei, arXiv 1412.2306)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flame_core.suite.content import Captioned, Skips
from flame_core.suite.definition import Benchmark
from flame_core.suite.layouts.captions import OTHER_SPLIT, CaptionRow, captioned
from flame_core.suite.layouts.reading import existing, inside, read_json, value


def read(benchmark: Benchmark, folder: Path, split: str) -> Captioned:
    """The pictures of `split` with all their sentences."""
    images = existing(folder / (benchmark.data.images or "images"))
    file = folder / (benchmark.data.annotations or "dataset.json")
    skips = Skips()

    def rows() -> Iterator[CaptionRow]:
        for number, row in enumerate(value(read_json(file, dict), "images", str(file), list)):
            place = f"{file}, image {number}"
            name = value(row, "filename", place)
            if "filepath" in row:
                name = f"{value(row, 'filepath', place)}/{name}"
            if (other := value(row, "split", place)) != split:
                skips.add(OTHER_SPLIT, f"{name} ({other})")
                continue
            sentences = value(row, "sentences", place, list)
            texts = [value(sentence, "raw", place).strip() for sentence in sentences]
            path = inside(images, name, place)
            yield CaptionRow(name, path, benchmark.languages[0], [text for text in texts if text])

    return captioned(benchmark, rows(), skips=skips)
