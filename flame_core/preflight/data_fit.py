"""Warnings about params that do not fit the data, as far as the data are there; nothing is computed.

The number of pictures comes from `data/shards/index.parquet`, else from the sources (`source.json` of a download, or
the picture files of a folder), languages from `data/captions`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flame_core.data.picture_kinds import is_picture
from flame_core.data.shards import INDEX, read_index
from flame_core.data.sources.listing import SOURCE, read_source
from flame_core.errors import FlameError
from flame_core.layout import Layout
from flame_core.measuring.measures import headline_k
from flame_core.params import FolderSource, Params, TrainParams
from flame_core.params.auto import fitting_batch, fitting_warmup, pictures_needed
from flame_core.params.section import AUTO
from flame_core.params.validation import Fault

WIDE = 0.10  # an interval of +- 10 points is the widest that is worth reading
_MOST_FILES = 200_000  # of a folder that are counted


@dataclass(frozen=True)
class Counts:
    """Pictures of the training and the held-out split, and what they were counted in."""

    train: int
    val: int
    basis: str

    @property
    def about(self) -> str:
        """`about ` if ingest has not counted them yet."""
        return "" if self.basis == INDEX else "about "


def data_warnings(params: Params, layout: Layout) -> list[Fault]:
    """What a run with these params would do that its user may not want."""
    counts = count_pictures(params, layout)
    found = list(_language_warnings(params, layout))
    if counts is not None:
        for name, recipe in params.train.items():
            if recipe.selection is None:  # of which the number of keys is not known yet
                own = _training_warnings(recipe, counts)
                found += [warning._replace(key=("train", name, *warning.key)) for warning in own]
        found += _held_out_warnings(params, counts)
    return found


def count_pictures(params: Params, layout: Layout) -> Counts | None:
    """The pictures of both splits: counted in the shards, else estimated from the sources; None if unknown."""
    if (layout.shards / INDEX).is_file():
        try:
            splits = [len(read_index(layout.shards, split)) for split in ("train", "val")]
        except FlameError:
            return None  # `flame ingest` makes it anew
        return Counts(splits[0], splits[1], INDEX)
    total = 0
    for name, source in params.sources.items():
        if (layout.raw / name / SOURCE).is_file():
            try:
                total += int(read_source(layout.raw / name)["pairs"])
            except FlameError:
                return None  # `flame download` makes it anew
        elif isinstance(source, FolderSource):
            total += _picture_files(layout, source)
        else:
            return None
    val = round(total * params.ingest.sizes(total).val_fraction)
    return Counts(total - val, val, "the sources") if total else None


def _picture_files(layout: Layout, source: FolderSource) -> int:
    count = seen = 0
    for _, _, names in os.walk(layout.resolve(source.path)):
        count += sum(map(is_picture, names))
        seen += len(names)
        if seen > _MOST_FILES:
            break
    return count


def _training_warnings(recipe: TrainParams, counts: Counts) -> Iterator[Fault]:
    pictures = f"{counts.about}{counts.train:,} training pictures"
    schedule = recipe.schedule(counts.train)
    if recipe.batch_size != AUTO and recipe.batch_size > counts.train:
        yield Fault(
            ("batch_size",),
            f"{recipe.batch_size:,}, and there are {pictures}: each step would take all of them, and an epoch be one "
            f"step; {fitting_batch(counts.train)} fits, and auto chooses it",
        )
    if recipe.warmup_steps != AUTO and recipe.warmup_steps >= schedule.steps:
        yield Fault(
            ("warmup_steps",),
            f"{recipe.warmup_steps:,}, and the whole training has {counts.about}{schedule.steps:,} steps "
            f"({schedule.epochs} epochs of {pictures}): the learning rate would never reach its peak; a tenth of the "
            f"steps fits, {fitting_warmup(schedule.steps):,}, and auto chooses it; or take more epochs",
        )


def _held_out_warnings(params: Params, counts: Counts) -> Iterator[Fault]:
    evaluate = params.evaluate
    limited = evaluate.max_pictures is not None and evaluate.max_pictures < counts.val
    measured = min(counts.val, evaluate.max_pictures or counts.val)
    key = ("evaluate", "max_pictures") if limited else ("ingest", "val_fraction")
    needed = pictures_needed(WIDE, evaluate.confidence)
    level = f"{evaluate.confidence:.0%}"
    k = headline_k(evaluate)
    floor = evaluate.gates.min_recall_over_chance
    best = ((1 - evaluate.confidence) / 2) ** (1 / measured) if measured else 0.0  # of an interval: every query a hit
    if floor and best <= floor * min(1.0, k / max(measured, 1)):
        yield Fault(
            key,
            f"{counts.about}{measured:,} held-out pictures: recall@{k} of a perfect model is not above chance there "
            f"(evaluate.gates.min_recall_over_chance), so every evaluation fails: hold out more, at least {4 * k}",
        )
    elif measured < needed:
        yield Fault(
            key,
            f"{counts.about}{measured:,} held-out pictures are few: {needed:,} give a {level} interval of +- "
            f"{WIDE:.0%}, {pictures_needed(WIDE / 2, evaluate.confidence):,} one of +- {WIDE / 2:.0%}",
        )


def _language_warnings(params: Params, layout: Layout) -> Iterator[Fault]:
    """Languages that no caption has: of the held-out split, and the training language of the training split."""
    files = sorted((layout.captions / "val").glob("*.parquet"))
    evaluate = params.evaluate
    if not files:
        return
    found: set[str] = set()
    for path in files:
        try:
            table = pq.read_table(path, columns=["kind", "language"])
        except (OSError, pa.ArrowException):
            return  # `flame caption` makes it anew
        found |= set(table.filter(pc.field("kind") == "raw").column("language").unique().to_pylist())
    known = ", ".join(sorted(found)) or "none"
    if evaluate.train_language not in found:
        yield Fault(
            ("evaluate", "train_language"),
            f"no held-out caption is in {evaluate.train_language!r}: nothing would be trained and measured in it; the "
            f"captions are in {known}",
        )
    for number, code in enumerate([] if evaluate.languages == "all" else evaluate.languages):
        if code not in found and code != evaluate.train_language:
            yield Fault(
                ("evaluate", "languages", str(number)),
                f"no held-out caption is in {code!r}, so it is not measured; the captions are in {known}",
            )
