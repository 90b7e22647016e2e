"""Checkpoints: everything that the next step needs, written whole or not at all.

They live in the work cache, `.flame/work/train-checkpoints/<digest of the training>/`, so a training resumes only
under the very inputs and params that it was started with. A checkpoint is a folder, `step-00001234/`, with a part
from each rank: all ranks hold the same weights, so each writes its share of them, and its own random state. Beside
each part stands its sha256, and a part with other bytes is never read: neither zip nor torch notices a flipped bit in
a weight. The last `settings().checkpoints_kept` stay; which checkpoint is best is not known in training
(docs/decisions/checkpoints.md).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flame_core.digest import file_sha256
from flame_core.ranks import ALONE, Ranks
from flame_core.work import clear_disk_errors

_PREFIX = "step-"
_DIGEST = ".sha256"  # in place of a part's .pt, in the format of sha256sum
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` steps."""

    step: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    random: tuple[Tensor, Tensor | None]  # of this rank's generators (dropout, stochastic depth)
    metrics: list[dict[str, float]]  # one row a step so far


def save(folder: Path, checkpoint: Checkpoint, keep: int, ranks: Ranks = ALONE) -> None:
    """Add a checkpoint to `folder` and remove all but the last `keep`. Every rank calls it."""
    name = f"{_PREFIX}{checkpoint.step:08}"
    building = folder / f".{name}"
    with clear_disk_errors(folder):
        if ranks.first:
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir(parents=True)
        ranks.barrier()
        _write(_part(checkpoint, ranks), building / f"{ranks.rank:05}.pt")
        ranks.barrier()
        if ranks.first:
            shutil.rmtree(folder / name, ignore_errors=True)
            building.rename(folder / name)
            for old in _steps(folder)[keep:]:
                shutil.rmtree(old, ignore_errors=True)
        ranks.barrier()


def load(folder: Path, ranks: Ranks = ALONE) -> Checkpoint | None:
    """The newest undamaged checkpoint in `folder`; None where there is none. Damaged ones are said and removed.

    Another number of ranks than the one that saved it is fine: the weights are the same; random states are taken
    over where the rank was there. Every rank calls it, verifies its share of the parts, and takes the same checkpoint.
    """
    steps = _steps(folder)
    for path in steps:
        damaged = [name for name in _part_names(path)[ranks.rank :: ranks.world] if not _is_whole(path / name)]
        if damaged:
            log.warning("%s is damaged (%s); training goes back to what is before it", path, ", ".join(damaged))
        if not ranks.any(bool(damaged)):
            try:
                return _read(path, ranks)
            except FileNotFoundError as error:  # on all ranks, which read the same files
                log.warning("%s lacks a part (%s); training goes back to what is before it", path, error.filename)
        if ranks.first:
            shutil.rmtree(path, ignore_errors=True)
    if steps and ranks.first:
        log.warning("%s holds no undamaged checkpoint; training begins anew", folder)
    return None


def _write(part: dict[str, Any], path: Path) -> None:
    """Write a part, and its digest beside it."""
    with path.open("wb") as file:
        try:
            torch.save(part, file)
        except RuntimeError as error:  # behind which torch hides why a write failed
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    path.with_suffix(_DIGEST).write_text(_digest_line(path))


def _part_names(path: Path) -> list[str]:
    """The parts of a checkpoint: those that are there or have a digest there, and all before them."""
    last = max((int(file.stem) for file in path.iterdir() if file.stem.isdecimal()), default=0)
    return [f"{rank:05}.pt" for rank in range(last + 1)]


def _is_whole(part: Path) -> bool:
    try:
        return part.with_suffix(_DIGEST).read_bytes() == _digest_line(part).encode()
    except OSError:
        return False


def _digest_line(part: Path) -> str:
    return f"{file_sha256(part)}  {part.name}\n"


def _steps(folder: Path) -> list[Path]:
    """Checkpoints, the newest first."""
    return sorted(folder.glob(f"{_PREFIX}*"), reverse=True)


def _part(checkpoint: Checkpoint, ranks: Ranks) -> dict[str, Any]:
    """What a rank writes: every world-th weight and optimizer state, and all that is small."""

    def own(items: dict[Any, Any]) -> dict[Any, Any]:
        return {name: items[name] for i, name in enumerate(items) if i % ranks.world == ranks.rank}

    return {
        "step": checkpoint.step,
        "world": ranks.world,
        "model": own(checkpoint.model),
        "optimizer": own(checkpoint.optimizer["state"]),
        "groups": checkpoint.optimizer["param_groups"],
        "random": checkpoint.random,
        "metrics": checkpoint.metrics if ranks.first else None,
    }


def _read(path: Path, ranks: Ranks) -> Checkpoint:
    first, *others = list(_parts(path))
    model, state = dict(first["model"]), dict(first["optimizer"])
    for part in others:
        model.update(part["model"])
        state.update(part["optimizer"])
    own = [first, *others][ranks.rank % first["world"]]
    optimizer = {"state": state, "param_groups": first["groups"]}
    return Checkpoint(first["step"], model, optimizer, own["random"], first["metrics"])


def _parts(path: Path) -> Iterator[dict[str, Any]]:
    first = torch.load(path / "00000.pt", map_location="cpu", weights_only=True)
    yield first
    for rank in range(1, first["world"]):
        yield torch.load(path / f"{rank:05}.pt", map_location="cpu", weights_only=True)
