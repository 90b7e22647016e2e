"""Learning rate and optimiser: linear warm-up, cosine to zero, AdamW without decay on 1-d parameters."""

from __future__ import annotations

import math

import torch
from torch import nn

from flame_core.objectives.objective import Objective
from flame_core.params import TrainParams


def learning_rate(step: int, total: int, warmup: int, peak: float) -> float:
    """The rate of step 0 to total - 1: rises over `warmup` steps, then falls along a half cosine to 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return 0.5 * peak * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def create_optimizer(towers: nn.Module, objective: Objective, params: TrainParams) -> torch.optim.AdamW:
    """AdamW over the towers' matrices with decay, their 1-d parameters without, and the objective's own groups.

    Each group has a `multiplier` of the learning rate.
    """
    trained = [p for p in towers.parameters() if p.requires_grad]
    optimizer = params.optimizer
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": optimizer.weight_decay, "multiplier": 1.0},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "multiplier": 1.0},
        *objective.groups(optimizer),
    ]
    fused = trained[0].is_cuda  # one kernel for all weights; on a CPU the plain one, whose bytes are promised
    return torch.optim.AdamW(
        groups, lr=optimizer.learning_rate, betas=optimizer.betas, eps=optimizer.eps, fused=fused or None
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's rate to `rate` times its multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiplier"]
