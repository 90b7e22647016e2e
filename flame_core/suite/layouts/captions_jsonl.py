"""`captions.jsonl` of {"image", "captions", "lang"} and a folder of pictures: the simplest layout of retrieval data.

`captions` is a text or a list of texts, `image` a path below `images/` (with or without that folder's name), `lang` a
language code. Without `lang` a caption is in the benchmark's language; if that has several, it is not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flame_core.suite.content import Captioned
from flame_core.suite.definition import Benchmark
from flame_core.suite.layouts.captions import CaptionRow, captioned
from flame_core.suite.layouts.reading import caption_texts, existing, inside, read_json_lines, value


def read(benchmark: Benchmark, folder: Path, split: str) -> Captioned:
    """Its content; each split has its own file (`data.annotations`)."""
    images = existing(folder / (benchmark.data.images or "images"))
    only = benchmark.languages[0] if len(benchmark.languages) == 1 else None

    def rows() -> Iterator[CaptionRow]:
        for place, row in read_json_lines(folder / (benchmark.data.annotations or "captions.jsonl")):
            name = value(row, "image", place)
            language = only if row.get("lang") is None else value(row, "lang", place)
            yield CaptionRow(name, inside(images, name, place), language, caption_texts(row.get("captions"), place))

    return captioned(benchmark, rows(), images)
