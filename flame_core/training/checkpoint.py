"""Checkpoints: everything that the next step needs, written whole or not at all.

They live in the work cache, `.flame/work/train-checkpoints/<digest of the training>/`, so a training resumes only
under the very inputs and params that it was started with.
"""

from __future__ import annotations

import logging
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from flame_core.work import clear_disk_errors, scratch

FILE = "checkpoint.pt"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` steps."""

    step: int
    tower: dict[str, Any]
    objective: dict[str, Any]
    optimizer: dict[str, Any]
    random_state: torch.Tensor  # of torch's global generator (dropout, stochastic depth)
    metrics: list[dict[str, float]]  # one row a step so far


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in `folder`."""
    with clear_disk_errors(folder), scratch(folder) as new:
        torch.save(asdict(checkpoint), new / FILE)
        (new / FILE).rename(folder / FILE)


def load(folder: Path) -> Checkpoint | None:
    """The checkpoint in `folder`; None where there is none, or a damaged one (which is said, and removed)."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, ValueError, EOFError, TypeError, KeyError, pickle.UnpicklingError) as error:
        log.warning("%s is damaged (%s); training starts again", path, error)
        path.unlink()
        return None
