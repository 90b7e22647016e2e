"""Checkpoints: everything that the next step needs, written completely or not at all.

They are in the work cache, `.flame/work/train-checkpoints/<digest of the training>/`, so a training resumes only with
the same inputs and params. A checkpoint is a folder, `step-00001234/`, with one part per rank: all ranks hold the same
weights, so each writes its share of them, and its own random state. Next to each part is its sha256, and a part with
other bytes is never read, because neither zip nor torch notices a flipped bit in a weight. The last
`settings().checkpoints_kept` are kept; training does not know which checkpoint is best (docs/decisions/checkpoints.md).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flame_core.digest import file_sha256
from flame_core.files.disk_errors import clear_disk_errors
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.stepping.random_state import RandomState

_PREFIX = "step-"
_RESUMED = "resumed-at"  # a file beside the checkpoints
_DIGEST = ".sha256"  # replaces a part's .pt; the format is that of sha256sum
Metrics = list[dict[str, float]]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` steps."""

    step: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    random: RandomState  # of this rank's generators (dropout, stochastic depth)
    metrics: Metrics  # one row per step so far


def save(folder: Path, checkpoint: Checkpoint, keep: int, ranks: Ranks = ALONE) -> None:
    """Add a checkpoint to `folder` and keep only the last `keep`. Every rank calls it."""
    name = f"{_PREFIX}{checkpoint.step:08}"
    building = folder / f".{name}"
    with clear_disk_errors(folder):
        if ranks.first:
            for unfinished in folder.glob(f".{_PREFIX}*"):  # of a training that was killed meanwhile
                shutil.rmtree(unfinished, ignore_errors=True)
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
    """The newest undamaged checkpoint in `folder`; None if there is none. Damaged ones are logged and removed.

    The number of ranks may differ from the one that saved it: the weights are the same, and further ranks start from
    the random states of existing ones. Every rank calls it, verifies its share of the parts, and gets the same
    checkpoint.
    """
    steps = _steps(folder)
    for path in steps:
        damaged = [name for name in _part_names(path)[ranks.rank :: ranks.world] if not _is_whole(path / name)]
        if damaged:
            log.warning("%s is damaged (%s); training goes back to an earlier state", path, ", ".join(damaged))
        if not ranks.any(bool(damaged)):
            try:
                found = _read(path, ranks)
            except FileNotFoundError as error:  # on all ranks, since they read the same files
                log.warning("%s lacks a part (%s); training goes back to an earlier state", path, error.filename)
            else:
                if ranks.first:
                    log.info("the training resumes at step %d, from %s", found.step, path)
                    with clear_disk_errors(folder):
                        (folder / _RESUMED).write_text(f"{found.step}\n")
                return found
        if ranks.first:
            shutil.rmtree(path, ignore_errors=True)
    if steps and ranks.first:
        log.warning("%s holds no undamaged checkpoint; training starts from the beginning", folder)
    return None


def resumed_at(folder: Path) -> int | None:
    """The step at which the training of these checkpoints last resumed; None if it never did."""
    try:
        return int((folder / _RESUMED).read_text())
    except FileNotFoundError:
        return None


def _write(part: dict[str, Any], path: Path) -> None:
    """Write a part, and its digest next to it."""
    with path.open("wb") as file:
        try:
            torch.save(part, file)
        except RuntimeError as error:  # torch hides the reason of a failed write behind this error
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    path.with_suffix(_DIGEST).write_text(_digest_line(path))


def _part_names(path: Path) -> list[str]:
    """Names of a checkpoint's parts, up to the last one that is there or has a digest there."""
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
    """Folders of checkpoints, the newest first."""
    return sorted(folder.glob(f"{_PREFIX}*"), reverse=True)


def _part(checkpoint: Checkpoint, ranks: Ranks) -> dict[str, Any]:
    """What a rank writes: every world-th weight and optimiser state, and everything small."""

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
