"""Pictures with semantic masks: `images/<name>.jpg`, `masks/<name>.png` (value = class number), `classnames.txt`."""

from __future__ import annotations

from pathlib import Path

from flame_core.evaluation.content import Masked, NotAvailable, Picture, Skips
from flame_core.evaluation.definition import Benchmark
from flame_core.evaluation.layouts.class_names import read_lines
from flame_core.evaluation.layouts.reading import existing, pictures_below


def read(benchmark: Benchmark, folder: Path, split: str) -> Masked:
    """The pictures that have a mask; the data set's folders are one split."""
    images = existing(folder / (benchmark.data.images or "images"))
    masks = existing(folder / (benchmark.data.annotations or "masks"))
    names = read_lines(folder / "classnames.txt")
    if len(names) < 2:
        raise NotAvailable(f"{folder / 'classnames.txt'} does not name two classes or more")
    by_stem = {path.stem: path for path in pictures_below(masks)}
    found, shown = [], []
    skips = Skips()
    for path in pictures_below(images):
        if path.stem in by_stem:
            found.append(Picture(path.name, path))
            shown.append(Picture(by_stem[path.stem].name, by_stem[path.stem]))
        else:
            skips.add("pictures without a mask", path.name)
    return Masked(found, shown, {benchmark.languages[0]: names}, skips)
