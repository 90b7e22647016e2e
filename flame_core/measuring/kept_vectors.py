"""Vectors of many pictures, kept in the work cache; a killed run continues after its last finished part.

The whole is one file, which is memory-mapped when it is read. The parts are removed once it exists.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flame_core.reporting import Bar, progress
from flame_core.work import Unit, UnitRecord, WorkCache

PART = 2048  # pictures


def kept_vectors(
    cache: WorkCache,
    name: str,
    title: str,
    count: int,
    inputs: Callable[[slice], Mapping[str, Any]],
    blocks: Callable[[slice], Iterable[np.ndarray]],
) -> np.ndarray:
    """Vectors [count, ...] in float32 of pictures.

    Args:
        cache: where they are kept.
        name: of the file in a unit.
        title: of the progress that is shown.
        count: number of pictures.
        inputs: the inputs of a unit with the vectors of some pictures; `slice(0, count)`: of all.
        blocks: encodes these pictures, and gives their vectors in blocks, in order.
    """
    whole = slice(0, count)
    unit = cache.find(cache.digest(inputs(whole)))
    if unit is None:
        with progress(title, count, "pictures") as bar:
            if count <= PART:
                unit = cache.get(inputs(whole), partial(_write, name, count, _told(blocks, whole, bar)))
            else:
                kept: list[Unit] = []
                for part in (slice(start, min(start + PART, count)) for start in range(0, count, PART)):
                    size = part.stop - part.start
                    kept.append(cache.get(inputs(part), partial(_write, name, size, _told(blocks, part, bar))))
                    bar.advance(0 if kept[-1].computed else size)
                unit = cache.get(inputs(whole), partial(_write, name, count, (_mapped(each, name) for each in kept)))
                for each in kept:
                    shutil.rmtree(each.folder, ignore_errors=True)
    return _mapped(unit, name)


def _mapped(unit: Unit, name: str) -> np.ndarray:
    return np.load(unit.file(name), mmap_mode="r")


def _write(name: str, count: int, blocks: Iterable[np.ndarray], folder: Path) -> UnitRecord:
    with (folder / name).open("wb") as file:
        for number, block in enumerate(blocks):
            if number == 0:
                header = {"descr": "<f4", "fortran_order": False, "shape": (count, *block.shape[1:])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(block, "<f4").data)
    return UnitRecord({"pictures": count})


def _told(blocks: Callable[[slice], Iterable[np.ndarray]], part: slice, bar: Bar) -> Iterator[np.ndarray]:
    for block in blocks(part):
        yield block
        bar.advance(len(block))
