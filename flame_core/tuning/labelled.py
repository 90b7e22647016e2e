"""Labelled pictures to tune and test on: the shards' categories, pictures of other domains, or benchmarks."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flame_core.absent_outs import bringing
from flame_core.data.shards import Split, read_index
from flame_core.digest import text_sha256
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.measuring.texts import read_classes
from flame_core.params import Params, TuneParams
from flame_core.suite.content import Labelled, NotAvailable, Picture
from flame_core.suite.definition import Benchmark, load_benchmarks
from flame_core.suite.layouts import read_content

LABELS = "labels.json"  # of a domain
_VALIDATION_SEED = 0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """Pictures and the number of each one's class."""

    pictures: Sequence[Picture]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, rows: np.ndarray) -> Part:
        """Some of them, by their rows."""
        return Part([self.pictures[int(row)] for row in rows], self.labels[rows])


@dataclass(frozen=True)
class Within:
    """The domain that heads are trained in, and tests in it and beyond it.

    Attributes:
        classes: names, by number.
        train, validation, test: parts of the domain.
        beyond: {name: pictures of another domain}; of the same classes, or some of them.
        left_out: {class: why} of classes with too few pictures.
        strange: {name: pictures whose class is not one of the domain}.
    """

    classes: list[str]
    train: Part
    validation: Part
    test: Part
    beyond: dict[str, Part] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    strange: dict[str, int] = field(default_factory=dict)


def read_within(params: Params, chosen: TuneParams, layout: Layout) -> Within:
    """All labelled pictures that `tune` names.

    Raises:
        InputError: data are missing, or too few pictures or classes are left.
        ParamsError: a benchmark has no classes.
    """
    if chosen.benchmark is None:
        training, test = (_of_shards(layout.shards, split) for split in ("train", "val"))
        where = str(layout.shards)
    else:
        training, test = (
            _of_benchmark(params, layout, chosen.benchmark, split) for split in (chosen.train_split, None)
        )
        where = f"benchmark {chosen.benchmark}"
    classes, left_out = _kept(training, test, chosen.min_pictures)
    if len(classes) < 2:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(left_out.items())[:5])
        raise InputError(
            f"{where}: tune needs two classes with {chosen.min_pictures} training pictures (tune.min_pictures) and a "
            f"test picture, and has {len(classes)}. Left out: {reasons or 'none, because no picture has a class'}"
        )
    train, validation = _split(_numbered(training, classes)[0], chosen.validation, len(classes))
    beyond, strange = {}, {}
    elsewhere = {name: _of_domain(layout.domains / name) for name in chosen.domains}
    for given in chosen.beyond:
        name = _benchmark(given, layout).name
        if name in (*elsewhere, "validation", "test"):
            raise ParamsError(f"tune.beyond: {given} is called {name}, as another test: rename one of them")
        elsewhere[name] = _of_benchmark(params, layout, given, None)
    for name, named in elsewhere.items():
        part, others = _numbered(named, classes)
        if len(set(part.labels.tolist())) < 2:
            raise InputError(
                f"{name}: {len(part)} of its pictures are of the classes {', '.join(classes)}, and a test beyond the "
                f"domain needs two of these; it has {', '.join(sorted(set(named.names))[:10])}"
            )
        beyond[name], strange[name] = part, others
    return Within(classes, train, validation, _numbered(test, classes)[0], beyond, left_out, strange)


@dataclass(frozen=True)
class _Named:
    """Pictures and the name of each one's class."""

    pictures: list[Picture]
    names: list[str]


def _of_shards(shards: Path, split: Split) -> _Named:
    classes = read_classes(shards, split)
    rows = [row for row in read_index(shards, split) if row.key in classes]
    pictures = [Picture(row.key, shards / row.shard, row.offset, row.size) for row in rows]
    return _Named(pictures, [classes[row.key] for row in rows])


def _of_domain(folder: Path) -> _Named:
    try:
        rows = json.loads((folder / LABELS).read_text("utf-8"))["pictures"]
        return _Named([Picture(row["key"], folder / row["file"]) for row in rows], [row["class"] for row in rows])
    except FileNotFoundError:
        raise InputError(f"{folder} is missing: {bringing(folder)}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / LABELS} is damaged ({error!r}): run `flame domains`") from None


def _benchmark(name: str, layout: Layout) -> Benchmark:
    (found,) = load_benchmarks([name], layout.project)
    return found


def _of_benchmark(params: Params, layout: Layout, name: str, split: str | None) -> _Named:
    benchmark = _benchmark(name, layout)
    if split == benchmark.data.split:
        raise ParamsError(f"tune.train_split: {name} is tested on its split {split!r}: train on another one")
    try:
        content = read_content(benchmark, layout.resolve(params.evaluate.benchmarks.data), split)
    except NotAvailable as error:
        raise InputError(f"benchmark {name} is not available: {error}. {benchmark.data.obtain}") from None
    if not isinstance(content, Labelled):
        raise ParamsError(f"benchmark {name} has no pictures with a class: take one of classification")
    language, names = next(iter(content.names.items()))
    named = dict(zip(content.parts.get(language, range(len(names))), names, strict=True))  # all classes, or some
    if shared := [each for each, number in Counter(named.values()).items() if number > 1]:
        log.warning(
            "benchmark %s: several classes have the same name, and tune takes their pictures as one class: %s",
            name,
            ", ".join(shared[:10]),
        )
    rows = [(picture, int(label)) for picture, label in zip(content.pictures, content.labels, strict=True)]
    known = [(picture, named[label]) for picture, label in rows if label in named]
    return _Named([picture for picture, _ in known], [name for _, name in known])


def _kept(training: _Named, test: _Named, least: int) -> tuple[list[str], dict[str, str]]:
    """The classes with enough pictures, sorted, and why the others are left out."""
    counts = {name: (training.names.count(name), test.names.count(name)) for name in {*training.names, *test.names}}
    left_out = {
        name: f"{own} training pictures" if own < least else "no test picture"
        for name, (own, tested) in sorted(counts.items())
        if own < least or not tested
    }
    return sorted(counts.keys() - left_out.keys()), left_out


def _numbered(named: _Named, classes: Sequence[str]) -> tuple[Part, int]:
    """The pictures of these classes, and how many others there are."""
    numbers: Mapping[str, int] = {name: number for number, name in enumerate(classes)}
    rows = [row for row, name in enumerate(named.names) if name in numbers]
    labels = np.array([numbers[named.names[row]] for row in rows], np.int64)
    return Part([named.pictures[row] for row in rows], labels), len(named.names) - len(rows)


def _split(part: Part, share: float, classes: int) -> tuple[Part, Part]:
    """(training, validation) parts: of each class, the share is held back, by a hash of the pictures' names."""
    held: list[int] = []
    for label in range(classes):
        own = np.flatnonzero(part.labels == label).tolist()
        own.sort(key=lambda row: text_sha256(f"validation {_VALIDATION_SEED} {part.pictures[row].name}"))
        held += own[: min(max(1, round(share * len(own))), len(own) - 1)]
    rows = np.array(sorted(held), np.int64)
    return part.chosen(np.setdiff1d(np.arange(len(part)), rows)), part.chosen(rows)
