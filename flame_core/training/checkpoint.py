"""Checkpoints: everything that the next step needs, written whole or not at all.

They live in the work cache, `.flame/work/train-checkpoints/<digest of the training>/`, so a training resumes only
under the very inputs and params that it was started with. A checkpoint is a folder, `step-00001234/`, with a part
from each rank: all ranks hold the same weights, so each writes its share of them, and its own random state. The last
`settings().checkpoints_kept` stay; which checkpoint is best is not known in training (docs/decisions/checkpoints.md).
"""

from __future__ import annotations

import logging
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flame_core.training.distributed import ALONE, Ranks
from flame_core.work import clear_disk_errors

_PREFIX = "step-"
_READ_ERRORS = (OSError, RuntimeError, ValueError, EOFError, TypeError, KeyError, pickle.UnpicklingError)
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
        torch.save(_part(checkpoint, ranks), building / f"{ranks.rank:05}.pt")
        ranks.barrier()
        if ranks.first:
            shutil.rmtree(folder / name, ignore_errors=True)
            building.rename(folder / name)
            for old in _steps(folder)[keep:]:
                shutil.rmtree(old, ignore_errors=True)
        ranks.barrier()


def load(folder: Path, ranks: Ranks = ALONE) -> Checkpoint | None:
    """The newest checkpoint in `folder` that is whole; None where there is none. Damaged ones are said and left out.

    Another number of ranks than the one that saved it is fine: the weights are the same; random states are taken
    over where the rank was there.
    """
    for path in _steps(folder):
        try:
            return _read(path, ranks)
        except _READ_ERRORS as error:
            log.warning("%s is damaged (%s); training goes back to what is before it", path, error)
    return None


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
