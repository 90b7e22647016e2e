"""COCO and Flickr30k in Karpathy's JSON: {"images": [{"filename", "split", "sentences": [{"raw"}]}]}.

COCO's `filepath` is the folder of a picture below the folder of pictures. (Karpathy and Fei-Fei, arXiv 1412.2306)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flame_core.evaluation.content import Captioned
from flame_core.evaluation.definition import Benchmark
from flame_core.evaluation.layouts.reading import captioned, existing, read_json, value


def read(benchmark: Benchmark, folder: Path, split: str) -> Captioned:
    """The pictures of `split` with all their sentences."""
    images = existing(folder / (benchmark.data.images or "images"))
    path = folder / (benchmark.data.annotations or "dataset.json")

    def rows() -> Iterator[tuple[str, Path, str, list[str]]]:
        for number, row in enumerate(value(read_json(path), "images", str(path), list)):
            place = f"{path}, image {number}"
            if value(row, "split", place) != split:
                continue
            name = str(Path(row.get("filepath", "")) / value(row, "filename", place))
            sentences = value(row, "sentences", place, list)
            texts = [value(sentence, "raw", place).strip() for sentence in sentences]
            yield name, images / name, benchmark.languages[0], [text for text in texts if text]

    return captioned(benchmark, rows())
