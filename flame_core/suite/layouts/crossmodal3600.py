"""Crossmodal-3600: `captions.jsonl` with one image per line and its captions by language, pictures in `images/`.

A line is {"image/key": ..., "en": {"caption": [...], ...}, "de": {...}, ...}; the picture is `images/<key>.jpg`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flame_core.suite.content import Captioned
from flame_core.suite.definition import Benchmark
from flame_core.suite.layouts.captions import CaptionRow, captioned
from flame_core.suite.layouts.reading import caption_texts, existing, inside, read_json_lines, value


def read(benchmark: Benchmark, folder: Path, split: str) -> Captioned:
    """Its content; the data set has one split."""
    images = existing(folder / (benchmark.data.images or "images"))

    def rows() -> Iterator[CaptionRow]:
        for place, row in read_json_lines(folder / (benchmark.data.annotations or "captions.jsonl")):
            key = value(row, "image/key", place)
            path = inside(images, f"{key}.jpg", place)
            for language in dict.fromkeys([*benchmark.languages, *row]):
                own = row.get(language)
                if isinstance(own, dict) and ("caption" in own or language in benchmark.languages):
                    yield CaptionRow(key, path, language, caption_texts(own.get("caption"), f"{place}, {language}"))

    return captioned(benchmark, rows(), images)
