"""The frame of a small training on one device: steps that count, a rate, and exact resume.

Pictures, losses and the optimiser are the caller's: it gives a function that takes one step. Interrupted and resumed, a
training whose steps depend only on their number, the weights and torch's random state ends with the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from flame_core.errors import Interrupted
from flame_core.processes.stop_request import stop_requested
from flame_core.reporting import progress
from flame_core.settings import settings
from flame_core.training import checkpoint
from flame_core.training.loop import Metrics
from flame_core.training.schedule import learning_rate, set_learning_rate
from flame_core.training.step import random_state, set_random_state


def take_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: Callable[[int], dict[str, float]],
    steps: int,
    *,
    warmup: int,
    rate: float,
    checkpoints: Path,
    title: str,
    after_step: Callable[[int], None],
) -> Metrics:
    """Take the steps that are left after the last checkpoint.

    Args:
        model: on one device; a checkpoint is loaded into it,
        optimizer: and into this.
        step: takes a step by its number; returns its metrics, with `loss` among them.
        steps: of the whole training.
        warmup: steps until the learning rate is `rate`, from which it falls along a cosine.
        rate: the highest learning rate.
        checkpoints: the folder of states.
        title: of the progress bar.
        after_step: called with the number of each finished step.

    Returns:
        `step`, the step's metrics and `learning_rate` of each.

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
            now = learning_rate(number, steps, warmup, rate)
            set_learning_rate(optimizer, now)
            metrics.append({"step": number, **step(number), "learning_rate": now})
            bar.advance(1, loss=metrics[-1]["loss"], lr=now)
            last = number + 1 == steps
            if stopped and not last:
                save()
                raise Interrupted(f"stopped after step {number + 1} of {steps}; run again to resume")
            if not last and time.monotonic() - last_save >= settings().checkpoint_seconds:
                save()
                last_save = time.monotonic()
            after_step(number)
    return metrics
