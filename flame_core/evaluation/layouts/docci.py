"""DOCCI: `docci_descriptions.jsonlines` of {"split", "image_file", "description"} and `images/`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flame_core.evaluation.content import Captioned
from flame_core.evaluation.definition import Benchmark
from flame_core.evaluation.layouts.reading import captioned, existing, read_json_lines, value


def read(benchmark: Benchmark, folder: Path, split: str) -> Captioned:
    """The entries of `split`, newlines as spaces."""
    images = existing(folder / (benchmark.data.images or "images"))

    def rows() -> Iterator[tuple[str, Path, str, list[str]]]:
        for place, row in read_json_lines(folder / (benchmark.data.annotations or "docci_descriptions.jsonlines")):
            if value(row, "split", place) == split:
                name = value(row, "image_file", place)
                text = value(row, "description", place).replace("\n", " ").strip()
                yield name, images / name, benchmark.languages[0], [text] if text else []

    return captioned(benchmark, rows())
