"""ShareGPT4V: a JSON list of {"image", "conversations"}; the second turn is the caption, newlines as spaces.

Papers take the first 1,000 entries for validation (`data.first`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flame_core.errors import InputError
from flame_core.evaluation.content import Captioned
from flame_core.evaluation.definition import Benchmark
from flame_core.evaluation.layouts.reading import captioned, existing, read_json, value

FILE = "share-captioner_coco_lcs_sam_1246k_1107.json"


def read(benchmark: Benchmark, folder: Path, split: str) -> Captioned:
    """The first entries of the file, as many as `data.first` says."""
    images = existing(folder / benchmark.data.images) if benchmark.data.images else folder
    path = folder / (benchmark.data.annotations or FILE)

    def rows() -> Iterator[tuple[str, Path, str, list[str]]]:
        for number, row in enumerate(read_json(path)[: benchmark.data.first]):
            place = f"{path}, entry {number}"
            turns = value(row, "conversations", place, list)
            if len(turns) < 2:
                raise InputError(f"{place}: a conversation needs two turns")
            text = value(turns[1], "value", place).replace("\n", " ").strip()
            name = value(row, "image", place)
            yield name, images / name, benchmark.languages[0], [text] if text else []

    return captioned(benchmark, rows())
