"""The training loop: batches of pictures and cached texts, AdamW, checkpoints, and a clean stop on a signal.

The loop is a function of its inputs: interrupted at any step and resumed, it ends with the same weights, bit for
bit on a CPU. The LLM is never loaded.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import nn

from flame_core.data.loader import Batch, EpochOrder, TrainingSamples, create_loader
from flame_core.errors import ComputationError, InputError, Interrupted
from flame_core.objectives.multi_positive_sigmoid import MultiPositiveSigmoid
from flame_core.params import TrainParams
from flame_core.reporting import progress
from flame_core.settings import settings
from flame_core.training import checkpoint
from flame_core.training.schedule import create_optimizer, learning_rate, set_learning_rate
from flame_core.vision.tower import ImageTower

Metrics = list[dict[str, float]]


@contextmanager
def stop_requested() -> Iterator[list[int]]:
    """A list that a SIGTERM or SIGINT is put into, for as long as the context is open."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    old = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def train(
    samples: TrainingSamples,
    hidden: int,
    params: TrainParams,
    checkpoints: Path,
    on_step: Callable[[dict[str, float]], None] = lambda row: None,
) -> tuple[ImageTower, Metrics]:
    """Train a tower into a space of `hidden` dimensions; `on_step` sees the metrics of each step as it is done.

    Returns:
        The tower, and for each step: step, epoch, loss, learning_rate, logit_scale, logit_bias.

    Raises:
        ComputationError: the loss is not finite; names the step and the batch's keys.
        Interrupted: a stop signal came; the state was saved.
        InputError: fewer than two samples.
    """
    if len(samples) < 2:
        raise InputError(f"training needs at least 2 samples, and the training split holds {len(samples)}")
    device = settings().torch_device()
    torch.set_num_threads(params.cpu_threads)
    torch.use_deterministic_algorithms(device == "cpu")
    torch.manual_seed(params.seed)
    batch_size = min(params.batch_size, len(samples))
    tower = ImageTower(params.model, hidden).to(device)
    objective = MultiPositiveSigmoid(params.objective, batch_size).to(device)
    optimizer = create_optimizer(tower, objective, params)
    metrics: Metrics = []
    saved = checkpoint.load(checkpoints)
    if saved:
        tower.load_state_dict(saved.tower)
        objective.load_state_dict(saved.objective)
        optimizer.load_state_dict(saved.optimizer)
        torch.set_rng_state(saved.random_state)
        metrics = saved.metrics
    step = len(metrics)
    order = EpochOrder(len(samples), params.batch_size, params.epochs, params.seed, first_step=step)
    loader = create_loader(samples, order, settings().loader_workers, pin_memory=device == "cuda")

    def save() -> None:
        state = (tower.state_dict(), objective.state_dict(), optimizer.state_dict(), torch.get_rng_state())
        checkpoint.save(checkpoints, checkpoint.Checkpoint(step, *state, metrics))

    total = order.total_steps
    images = order.batch_size
    last_save = time.monotonic()
    with stop_requested() as stopped, progress("train", total * images, "images", done=step * images) as bar:
        for batch in loader:
            rate = learning_rate(step, total, params.warmup_steps, params.optimizer.learning_rate)
            set_learning_rate(optimizer, rate)
            loss = _step(tower, objective, optimizer, batch, params, device)
            if not math.isfinite(loss):
                keys = ", ".join(batch.keys[:8])
                raise ComputationError(f"the loss of step {step} is {loss}; the batch's keys begin with {keys}")
            metrics.append(
                {
                    "step": step,
                    "epoch": step // order.steps_per_epoch,
                    "loss": loss,
                    "learning_rate": rate,
                    "logit_scale": objective.logit_scale.exp().item(),
                    "logit_bias": objective.logit_bias.item(),
                }
            )
            on_step(metrics[-1])
            step += 1
            bar.advance(images, loss=loss, lr=rate)
            if stopped and step < total:
                save()
                raise Interrupted(f"stopped by signal {stopped[0]} after step {step} of {total}; run again to resume")
            if step < total and time.monotonic() - last_save >= settings().checkpoint_seconds:
                save()
                last_save = time.monotonic()
    return tower, metrics


def _step(
    tower: nn.Module,
    objective: MultiPositiveSigmoid,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    params: TrainParams,
    device: str,
) -> float:
    pictures = batch.pictures.to(device, non_blocking=True)  # [B, 3, H, W]
    t = batch.texts.to(device, non_blocking=True)  # [B, K, D]
    with torch.autocast(device, torch.bfloat16, enabled=params.precision == "bfloat16"):
        z = tower(pictures)  # [B, D]
    loss = objective(z, t)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if params.optimizer.clip_grad_norm is not None:
        nn.utils.clip_grad_norm_(tower.parameters(), params.optimizer.clip_grad_norm)
    optimizer.step()
    objective.clamp()
    return loss.item()
