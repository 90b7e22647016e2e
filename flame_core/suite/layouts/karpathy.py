"""COCO and Flickr30k in Karpathy's JSON: {"images": [{"filename", "split", "sentences": [{"raw"}]}]}.

Several languages have a file each, such as `annotations: dataset_{language}.json`; pictures are the same if their names
are. COCO's `filepath` is the folder of a picture below the folder of pictures. (Karpathy and Fei-Fei, arXiv 1412.2306)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flame_core.errors import InputError
from flame_core.suite.content import Captioned, Skips
from flame_core.suite.definition import Benchmark
from flame_core.suite.layouts.captions import OTHER_SPLIT, CaptionRow, captioned
from flame_core.suite.layouts.reading import existing, inside, read_json, value

LANGUAGE = "{language}"


def read(benchmark: Benchmark, folder: Path, split: str) -> Captioned:
    """The pictures of `split` with all their sentences.

    Raises:
        InputError: several languages share one file.
    """
    images = existing(folder / (benchmark.data.images or "images"))
    name = benchmark.data.annotations or "dataset.json"
    if LANGUAGE not in name and len(benchmark.languages) > 1:
        raise InputError(
            f"{folder / name}: Karpathy's JSON does not name its language; for {', '.join(benchmark.languages)} write "
            f"data.annotations with {LANGUAGE}, such as dataset_{LANGUAGE}.json"
        )
    skips = Skips()
    rows = (
        row
        for language in benchmark.languages
        for row in _rows(existing(folder / name.replace(LANGUAGE, language)), images, language, split, skips)
    )
    return captioned(benchmark, rows, skips=skips)


def _rows(file: Path, images: Path, language: str, split: str, skips: Skips) -> Iterator[CaptionRow]:
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
        yield CaptionRow(name, inside(images, name, place), language, [text for text in texts if text])
