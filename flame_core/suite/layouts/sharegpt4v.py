"""ShareGPT4V: a JSON list of {"image", "conversations"}; the second turn is the caption, newlines as spaces.

Papers take the first 1,000 entries for validation (`data.first`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flame_core.errors import InputError
from flame_core.suite.content import Captioned, Skips
from flame_core.suite.definition import Benchmark
from flame_core.suite.layouts.captions import CaptionRow, captioned
from flame_core.suite.layouts.reading import existing, inside, read_json, value

FILE = "share-captioner_coco_lcs_sam_1246k_1107.json"


def read(benchmark: Benchmark, folder: Path, split: str) -> Captioned:
    """The first entries of the file, as many as `data.first` says."""
    images = existing(folder / benchmark.data.images) if benchmark.data.images else folder
    path = folder / (benchmark.data.annotations or FILE)
    skips = Skips()

    def rows() -> Iterator[CaptionRow]:
        entries = read_json(path, list)
        if left := len(entries[benchmark.data.first :]) if benchmark.data.first else 0:
            skips.add("entries behind the first (data.first)", f"entry {benchmark.data.first}", left)
        for number, row in enumerate(entries[: benchmark.data.first]):
            place = f"{path}, entry {number}"
            turns = value(row, "conversations", place, list)
            if len(turns) < 2:
                raise InputError(f"{place}: a conversation needs two turns")
            text = value(turns[1], "value", place).replace("\n", " ").strip()
            name = value(row, "image", place)
            yield CaptionRow(name, inside(images, name, place), benchmark.languages[0], [text] if text else [])

    return captioned(benchmark, rows(), skips=skips)
