"""The frame of a small training on one device: steps that count, a rate, and exact resume.

The result is a unit of a work cache; until it is there, checkpoints lie beside the cache, under the unit's digest.

Pictures, losses and the optimiser are the caller's: it gives a function that takes one step. Interrupted and resumed, a
training whose steps depend only on their number, the weights and torch's random state ends with the same weights.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flame_core.errors import Interrupted
from flame_core.files.whole_folders import alone
from flame_core.processes.stop_request import stop_requested
from flame_core.reporting import progress
from flame_core.settings import settings
from flame_core.stepping import checkpoint
from flame_core.stepping.checkpoint import Metrics
from flame_core.stepping.learning_rate import set_learning_rate
from flame_core.stepping.random_state import random_state, set_random_state
from flame_core.work import Unit, UnitRecord, WorkCache


def trained_unit(cache: WorkCache, inputs: Mapping[str, Any], train: Callable[[Path, Path], UnitRecord]) -> Unit:
    """The unit of a training with these inputs, found or trained; another process that trains the same is waited for.

    `train(folder of the unit, checkpoints)` writes it. The checkpoints are removed once the unit is there.
    """
    digest = cache.digest(inputs)
    checkpoints = cache.folder.with_name(f"{cache.stage.replace('_', '-')}-checkpoints") / digest
    with alone(checkpoints):
        unit = cache.find(digest) or cache.compute(digest, lambda folder: train(folder, checkpoints))
        shutil.rmtree(checkpoints, ignore_errors=True)
    return unit


def take_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: Callable[[int], dict[str, float]],
    steps: int,
    *,
    rate: Callable[[int], float],
    checkpoints: Path,
    title: str,
    shown: str = "loss",
    after_step: Callable[[int], None] = lambda step: None,
) -> Metrics:
    """Take the steps that are left after the last checkpoint.

    Args:
        model: on one device; a checkpoint is loaded into it,
        optimizer: and into this.
        step: takes a step by its number, from 0 on; returns its metrics.
        steps: of the whole training.
        rate: the learning rate of a step, which each of the optimiser's groups multiplies by its `multiplier`.
        checkpoints: the folder of states.
        title: of the progress bar.
        shown: the metric that the bar shows as the loss.
        after_step: called with the number of each finished step.

    Returns:
        The metrics of each step, and `learning_rate`, that of the first group.

    Raises:
        Interrupted: a stop signal came; the state was saved.
    """
    device = next(model.parameters()).device
    metrics: Metrics = []
    if saved := checkpoint.load(checkpoints):
        model.load_state_dict(saved.model)
        optimizer.load_state_dict(saved.optimizer)
        set_random_state(saved.random, device)
        metrics = saved.metrics

    def save() -> None:
        state = (model.state_dict(), optimizer.state_dict(), random_state(device))
        checkpoint.save(checkpoints, checkpoint.Checkpoint(len(metrics), *state, metrics), settings().checkpoints_kept)

    last_save, first = time.monotonic(), len(metrics)
    with stop_requested() as stopped, progress(title, steps, "steps", first) as bar:
        for number in range(first, steps):
            set_learning_rate(optimizer, rate(number))
            now = optimizer.param_groups[0]["lr"]
            metrics.append({**step(number), "learning_rate": now})
            bar.advance(1, loss=metrics[-1][shown], lr=now)
            last = number + 1 == steps
            if stopped and not last:
                save()
                raise Interrupted(f"stopped after step {number + 1} of {steps}; run again to resume")
            if not last and time.monotonic() - last_save >= settings().checkpoint_seconds:
                save()
                last_save = time.monotonic()
            after_step(number)
    return metrics
