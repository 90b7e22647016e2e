"""Pictures with semantic masks: `images/<name>.jpg`, `masks/<name>.png` (value = class number), `classnames.txt`."""

from __future__ import annotations

from pathlib import Path

from flame_core.suite.content import Masked, NotAvailable, Picture, Skips
from flame_core.suite.definition import Benchmark
from flame_core.suite.layouts.class_names import read_lines
from flame_core.suite.layouts.reading import by_stem, existing, pictures_below


def read(benchmark: Benchmark, folder: Path, split: str) -> Masked:
    """The pictures that have a mask; the data set has one split."""
    images = existing(folder / (benchmark.data.images or "images"))
    masks = existing(folder / (benchmark.data.annotations or "masks"))
    skips = Skips()
    names = read_lines(folder / "classnames.txt")
    if len(names) < 2:
        raise NotAvailable(f"{folder / 'classnames.txt'} does not name two classes or more")
    by_name = by_stem(pictures_below(masks, skips))
    found, shown = [], []
    pictures = by_stem(pictures_below(images, skips))
    for stem, path in pictures.items():
        if stem in by_name:
            found.append(Picture(path.name, path))
            shown.append(Picture(by_name[stem].name, by_name[stem]))
        else:
            skips.add("pictures without a mask", path.name)
    for stem in sorted(by_name.keys() - pictures.keys()):
        skips.add("masks without a picture", by_name[stem].name)
    return Masked(found, shown, {benchmark.languages[0]: names}, skips)
