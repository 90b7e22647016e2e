"""The training of a captioner: the loss of captions behind a picture's prompts, through the frozen LLM.

    L = caption_loss(v(picture), caption)

Gradients reach the connector and, with `tower_rate`, the tower. Interrupted and resumed, it ends with the same weights,
on a CPU bit for bit. One process, one device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from flame_core.captioning.pairs import Batches
from flame_core.errors import ComputationError
from flame_core.params import CaptionLMParams
from flame_core.processes.gpu import memory_advice
from flame_core.soft_prompts.frozen_llm import FrozenLLM
from flame_core.soft_prompts.reader import caption_ids, caption_loss
from flame_core.stepping.checkpoint import Metrics
from flame_core.stepping.learning_rate import learning_rate
from flame_core.stepping.stepwise import take_steps
from flame_core.stepping.weight_decay import parameter_groups
from flame_core.vision.feature_maps import batch_norms
from flame_core.vision.tower import ImageTower


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
    for module in batch_norms(tower.backbone):  # which keep their statistics (`vision/feature_maps.py`)
        module.eval()
    optimizer = _optimizer(tower, params)
    torch.manual_seed(params.seed)

    @memory_advice(f"set caption_lm.batch_size (now {params.batch_size}) to less")
    def step(number: int) -> dict[str, float]:
        pictures, texts = batches(number)
        v = tower(pictures.to(device), ("prompts",))["prompts"]
        loss = caption_loss(llm, v, caption_ids(llm, texts, params.max_tokens).to(device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ComputationError(
                f"caption_lm: the loss of step {number} is not finite: lower caption_lm.learning_rate "
                f"({params.learning_rate:g})"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if params.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_([w for w in tower.parameters() if w.grad is not None], params.clip_grad_norm)
        optimizer.step()
        return {"step": number, "loss": value}

    return take_steps(
        tower,
        optimizer,
        step,
        params.steps,
        rate=lambda number: learning_rate(number, params.steps, params.warmup_steps, params.learning_rate),
        checkpoints=checkpoints,
        title="caption-lm",
        after_step=after_step,
    )


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
