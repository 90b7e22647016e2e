"""A training that is killed after a step, in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

from flame_core.params import TrainParams
from flame_core.processes.ranks import ALONE


def train_killed(train: Callable[..., object], folder: Path, checkpoints: Path, params: TrainParams, step: int) -> None:
    """Call `train`, a function of a module; after each step there is a checkpoint, and after `step` it is killed."""
    child = multiprocessing.get_context("spawn").Process(target=_train, args=(train, folder, checkpoints, params, step))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def _train(train: Callable[..., object], folder: Path, checkpoints: Path, params: TrainParams, step: int) -> None:
    os.environ |= {"FLAME_CHECKPOINT_SECONDS": "0", "FLAME_DEVICE": "cpu"}

    def die(row: dict[str, float]) -> None:
        if row["step"] == step:
            os.kill(os.getpid(), signal.SIGKILL)

    train(ALONE, folder, checkpoints, params, die)
