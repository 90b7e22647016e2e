"""Densely Captioned Images: `splits.json`, `annotations/*.json`, `photos/`; the entries of every split.

A text is the short caption, a newline and the extra caption, cut at newlines, full stops and `</s>`, the parts
stripped and joined by ". ", as FLAME's evaluation does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from flame_core.suite.content import Captioned, Skips
from flame_core.suite.definition import Benchmark
from flame_core.suite.layouts.captions import CaptionRow, captioned
from flame_core.suite.layouts.reading import existing, inside, read_json, value


def dci_text(short: str, extra: str) -> str:
    """The text of an entry."""
    parts = (part.strip() for part in re.split(r"\n|</s>|[.]", f"{short}\n{extra}"))
    return ". ".join(part for part in parts if part)


def read(benchmark: Benchmark, folder: Path, split: str) -> Captioned:
    """All entries of all splits, as the papers use them."""
    images = existing(folder / (benchmark.data.images or "photos"))
    annotations = existing(folder / (benchmark.data.annotations or "annotations"))
    place = folder / "splits.json"
    splits = read_json(place, dict)
    listed = [name for part in splits for name in value(splits, part, str(place), list)]
    skips = Skips()

    def rows() -> Iterator[CaptionRow]:
        for name in listed:
            path = inside(annotations, str(name), str(place))
            entry = read_json(path, dict)
            image = value(entry, "image", str(path))
            text = dci_text(value(entry, "short_caption", str(path)), value(entry, "extra_caption", str(path)))
            yield CaptionRow(name, inside(images, image, str(path)), benchmark.languages[0], [text] if text else [])
        named = set(map(str, listed))
        for path in sorted(annotations.glob("*.json")):
            if path.name not in named:
                skips.add("annotations that no split names", path.name)

    return captioned(benchmark, rows(), skips=skips)
