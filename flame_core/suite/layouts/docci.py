"""DOCCI: `docci_descriptions.jsonlines` of {"split", "image_file", "description"} and `images/`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flame_core.suite.content import Captioned, Skips
from flame_core.suite.definition import Benchmark
from flame_core.suite.layouts.captions import OTHER_SPLIT, CaptionRow, captioned
from flame_core.suite.layouts.reading import existing, inside, read_json_lines, value


def read(benchmark: Benchmark, folder: Path, split: str) -> Captioned:
    """The entries of `split`, newlines as spaces."""
    images = existing(folder / (benchmark.data.images or "images"))
    skips = Skips()

    def rows() -> Iterator[CaptionRow]:
        for place, row in read_json_lines(folder / (benchmark.data.annotations or "docci_descriptions.jsonlines")):
            name = value(row, "image_file", place)
            if (other := value(row, "split", place)) != split:
                skips.add(OTHER_SPLIT, f"{name} ({other})")
                continue
            text = value(row, "description", place).replace("\n", " ").strip()
            yield CaptionRow(name, inside(images, name, place), benchmark.languages[0], [text] if text else [])

    return captioned(benchmark, rows(), skips=skips)
