"""Winoground: `examples.jsonl` of {"id", "image_0", "image_1", "caption_0", "caption_1"} and `images/<name>.png`."""

from __future__ import annotations

from pathlib import Path

from flame_core.suite.content import Picture, Question, Questions, Skips
from flame_core.suite.definition import Benchmark
from flame_core.suite.layouts.reading import existing, inside, read_json_lines, value
from flame_core.suite.layouts.sugarcrepe import NO_PICTURE


def read(benchmark: Benchmark, folder: Path, split: str) -> Questions:
    """One group of questions with two pictures and two texts each; the data set has one split."""
    images = existing(folder / (benchmark.data.images or "images"))
    pictures: list[Picture] = []
    questions: list[Question] = []
    skips = Skips()
    for place, row in read_json_lines(folder / (benchmark.data.annotations or "examples.jsonl")):
        name = str(row.get("id", place))
        paths = [_image(images, value(row, key, place), place) for key in ("image_0", "image_1")]
        if not all(path.is_file() for path in paths):
            skips.add(NO_PICTURE, name)
            continue
        first = len(pictures)
        pictures += [Picture(path.name, path) for path in paths]
        texts = (value(row, "caption_0", place), value(row, "caption_1", place))
        questions.append(Question(name, "winoground", (first, first + 1), texts))
    return Questions(pictures, questions, skips)


def _image(images: Path, name: str, place: str) -> Path:
    return inside(images, name if Path(name).suffix else f"{name}.png", place)
