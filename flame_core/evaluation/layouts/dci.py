"""Densely Captioned Images: `splits.json`, `annotations/*.json`, `photos/`; the entries of every split.

A text is the short caption, a newline and the extra caption, cut at newlines, full stops and `</s>`, the parts
stripped and joined by ". ", as FLAME's evaluation does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from flame_core.evaluation.content import Captioned
from flame_core.evaluation.definition import Benchmark
from flame_core.evaluation.layouts.reading import captioned, existing, read_json, value


def dci_text(short: str, extra: str) -> str:
    """The text of an entry."""
    parts = (part.strip() for part in re.split(r"\n|</s>|[.]", f"{short}\n{extra}"))
    return ". ".join(part for part in parts if part)


def read(benchmark: Benchmark, folder: Path, split: str) -> Captioned:
    """All entries of all splits, as the papers use them."""
    images = existing(folder / (benchmark.data.images or "photos"))
    annotations = existing(folder / (benchmark.data.annotations or "annotations"))
    splits = read_json(folder / "splits.json")
    listed = [name for names in splits.values() for name in names]

    def rows() -> Iterator[tuple[str, Path, str, list[str]]]:
        for name in listed:
            path = annotations / name
            entry = read_json(path)
            image = value(entry, "image", str(path))
            text = dci_text(value(entry, "short_caption", str(path)), value(entry, "extra_caption", str(path)))
            yield name, images / image, benchmark.languages[0], [text] if text else []

    return captioned(benchmark, rows())
