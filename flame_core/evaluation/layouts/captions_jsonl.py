"""`captions.jsonl` of {"image", "captions", "lang"} and a folder of pictures: the plainest layout of retrieval data.

`captions` is a text or a list of texts, `lang` a language code (the benchmark's first language where it is absent),
`image` a path below `images/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flame_core.evaluation.content import Captioned
from flame_core.evaluation.definition import Benchmark
from flame_core.evaluation.layouts.reading import caption_texts, captioned, existing, read_json_lines, value


def read(benchmark: Benchmark, folder: Path, split: str) -> Captioned:
    """Its content; `split` is not used, a split is a file of its own (`data.annotations`)."""
    images = existing(folder / (benchmark.data.images or "images"))

    def rows() -> Iterator[tuple[str, Path, str, list[str]]]:
        for place, row in read_json_lines(folder / (benchmark.data.annotations or "captions.jsonl")):
            name = value(row, "image", place)
            language = row.get("lang", benchmark.languages[0])
            yield name, images / name, language, caption_texts(row.get("captions"), place)

    return captioned(benchmark, rows(), images)
