"""The training of a captioner: the loss of captions behind a picture's prompts, through the frozen LLM.

    L = caption_loss(v(picture), caption)

Gradients reach the connector and, with `tower_rate`, the tower. Interrupted and resumed, it ends with the same weights,
on a CPU bit for bit. One process, one device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from flame_core.captioning.pairs import Batches
from flame_core.errors import ComputationError, Interrupted
from flame_core.objectives.term import parameter_groups
from flame_core.params import CaptionLMParams
from flame_core.reporting import progress
from flame_core.settings import settings
from flame_core.soft_prompts.frozen_llm import FrozenLLM
from flame_core.soft_prompts.reader import caption_ids, caption_loss
from flame_core.training import checkpoint
from flame_core.training.loop import stop_requested
from flame_core.training.schedule import learning_rate, set_learning_rate
from flame_core.training.step import random_state, set_random_state
from flame_core.vision.tower import ImageTower

Metrics = list[dict[str, float]]


def fit(
    tower: ImageTower,
    llm: FrozenLLM,
    batches: Batches,
    params: CaptionLMParams,
    checkpoints: Path,
    after_step: Callable[[int], None] = lambda step: None,
) -> Metrics:
    """Train a tower's connector on the LLM's device, or resume; the tower is changed in place.

    Returns:
        step, loss (nats per token) and learning_rate of each step.

    Raises:
        ComputationError: the loss is not finite; names the step.
        Interrupted: a stop signal came; the state was saved.
    """
    device = llm.device
    tower.to(device).train()
    optimizer = _optimizer(tower, params)
    torch.manual_seed(params.seed)
    metrics: Metrics = []
    if saved := checkpoint.load(checkpoints):
        tower.load_state_dict(saved.model)
        optimizer.load_state_dict(saved.optimizer)
        set_random_state(saved.random, device)
        metrics = saved.metrics

    def save() -> None:
        state = (tower.state_dict(), optimizer.state_dict(), random_state(device))
        checkpoint.save(checkpoints, checkpoint.Checkpoint(len(metrics), *state, metrics), settings().checkpoints_kept)

    last_save, first = time.monotonic(), len(metrics)
    with stop_requested() as stopped, progress("caption-lm", params.steps, "steps", first) as bar:
        for step in range(first, params.steps):
            rate = learning_rate(step, params.steps, params.warmup_steps, params.learning_rate)
            set_learning_rate(optimizer, rate)
            pictures, texts = batches(step)
            v = tower(pictures.to(device), ("prompts",))["prompts"]
            loss = caption_loss(llm, v, caption_ids(llm, texts, params.max_tokens).to(device))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise ComputationError(f"caption_lm: the loss of step {step} is {value}: lower the learning rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if params.clip_grad_norm is not None:
                nn.utils.clip_grad_norm_([w for w in tower.parameters() if w.grad is not None], params.clip_grad_norm)
            optimizer.step()
            metrics.append({"step": step, "loss": value, "learning_rate": rate})
            bar.advance(1, loss=value, lr=rate)
            if stopped and step + 1 < params.steps:
                save()
                raise Interrupted(f"stopped after step {step + 1} of {params.steps}; run again to resume")
            if time.monotonic() - last_save >= settings().checkpoint_seconds and step + 1 < params.steps:
                save()
                last_save = time.monotonic()
            after_step(step)
    return metrics


def _optimizer(tower: ImageTower, params: CaptionLMParams) -> torch.optim.AdamW:
    """AdamW over the connector, and over the backbone at a rate of its own; the head of z is not trained."""
    tower.requires_grad_(False)
    groups = []
    for module, multiplier in ((tower.connector, 1.0), (tower.backbone, params.tower_rate)):
        if module is not None and multiplier:
            module.requires_grad_(True)
            groups += parameter_groups(list(module.parameters()), params.weight_decay, multiplier)
    if not params.tower_rate:
        tower.backbone.eval()
    return torch.optim.AdamW(groups, lr=params.learning_rate, betas=(0.9, 0.95))
