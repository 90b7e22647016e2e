"""One folder per class: `<split>/<class>/*.jpg`, or `<class>/*.jpg` if there are no split folders.

`classnames.txt` next to them has the names of the classes in prompts, one per line in the order of the sorted folders
of the splits in use; without it the folders' names are used. `task.class_names` adds other languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flame_core.files.regular_files import is_hidden
from flame_core.names import printable
from flame_core.suite.content import Labelled, NotAvailable, Picture, Skips
from flame_core.suite.definition import DEFAULT_SPLIT, Benchmark
from flame_core.suite.layouts.class_names import NAMES, class_names, read_lines
from flame_core.suite.layouts.reading import HIDDEN, OTHER_FILES, is_picture, pictures_below

_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})


def read(benchmark: Benchmark, folder: Path, split: str) -> Labelled:
    """Its content, class after class.

    Raises:
        NotAvailable: there is no such split, or it has fewer than two classes.
        InputError: the names of the classes are wrong.
    """
    skips = Skips()
    root = _root(folder, split)
    classes = []
    for path in sorted(root.iterdir()):
        if is_hidden(path.name):
            skips.add(HIDDEN, path.name)
        elif path.is_dir():
            classes.append(path)
        elif is_picture(path.name):
            skips.add("pictures without a class", path.name)
        elif path.name not in (NAMES, getattr(benchmark.task, "class_names", None)):
            skips.add(OTHER_FILES, printable(path.name))
    if len(classes) < 2:
        raise NotAvailable(f"{root} holds fewer than two class folders")
    listed = read_lines(folder / NAMES)
    named = listed or getattr(benchmark.task, "class_names", None)
    known = _named_folders(benchmark, folder, root, listed) if named else [path.name for path in classes]
    own = listed or [printable(name.replace("_", " ")) for name in known]
    pictures: list[Picture] = []
    labels: list[int] = []
    for label, name in enumerate(known):
        found = pictures_below(root / name, skips) if (root / name).is_dir() else []
        if not found:
            skips.add("classes without a picture", name)
        pictures += [Picture(image.relative_to(root).as_posix(), image) for image in found]
        labels += [label] * len(found)
    found = class_names(benchmark, folder, own, len(known), skips)
    return Labelled(
        pictures, np.array(labels, dtype=np.int64), found.names, found.templates, skips=skips, parts=found.parts
    )


def _named_folders(benchmark: Benchmark, folder: Path, root: Path, listed: Sequence[str]) -> list[str]:
    """The classes' folders, sorted, that the names are of: of the splits in use, or of all if that many are listed.

    A list of names must mean the same in the split that is trained on and in the one that is tested.
    """
    if root == folder:
        return _classes([root])
    asked = (benchmark.data.split, getattr(benchmark.task, "train_split", root.name))
    used = [root, *(folder / name for name in asked if (folder / name).is_dir())]
    others = [path for path in folder.iterdir() if path.name.lower() in _SPLITS and path.is_dir()]
    own, of_all = _classes(used), _classes([*used, *others])
    return of_all if len(own) != len(listed) == len(of_all) else own


def _classes(places: Sequence[Path]) -> list[str]:
    found = (path for place in places for path in place.iterdir())
    return sorted({path.name for path in found if path.is_dir() and not is_hidden(path.name)})


def _root(folder: Path, split: str) -> Path:
    """The folder of a split's classes."""
    if (folder / split).is_dir():
        return folder / split
    others = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name.lower() in _SPLITS)
    if others or split != DEFAULT_SPLIT:  # without split folders there is a single split without a name
        hint = f"; it has {', '.join(others)}: name one as data.split" if others else ""
        raise NotAvailable(f"{folder} has no split {split!r}{hint}")
    return folder
