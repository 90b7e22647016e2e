"""One folder a class: `<split>/<class>/*.jpg`, or the classes directly below where there are no split folders.

`classnames.txt` beside it, one name a line in the order of the sorted folders, names the classes in prompts;
without it a folder's name does. `task.class_names` brings other languages.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flame_core.evaluation.content import Labelled, NotAvailable, Picture, Skips
from flame_core.evaluation.definition import Benchmark
from flame_core.evaluation.layouts.class_names import class_names, read_lines
from flame_core.evaluation.layouts.reading import pictures_below


def read(benchmark: Benchmark, folder: Path, split: str) -> Labelled:
    """Its content, class after class."""
    root = folder / split if (folder / split).is_dir() else folder
    classes = sorted(path for path in root.iterdir() if path.is_dir())
    if len(classes) < 2:
        raise NotAvailable(f"{root} holds fewer than two class folders")
    own = read_lines(folder / "classnames.txt") or [path.name.replace("_", " ") for path in classes]
    pictures: list[Picture] = []
    labels: list[int] = []
    skips = Skips()
    for label, path in enumerate(classes):
        found = pictures_below(path)
        if not found:
            skips.add("classes without a picture", path.name)
        pictures += [Picture(image.relative_to(root).as_posix(), image) for image in found]
        labels += [label] * len(found)
    names, templates = class_names(benchmark, folder, own, len(classes))
    return Labelled(pictures, np.array(labels, dtype=np.int64), names, templates, skips)
