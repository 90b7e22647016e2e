"""The learning rate of a step: a linear rise, and half a cosine to zero."""

from __future__ import annotations

import math

import torch


def learning_rate(step: int, total: int, warmup: int, peak: float, falls_from: int | None = None) -> float:
    """The rate at a step from 0 to total - 1: rises over `warmup` steps, and falls along a half cosine to 0.

    It falls from the step `falls_from`, by default after the rise; if that is earlier, the rate is the product of both.
    """
    start = warmup if falls_from is None else falls_from
    fall = 0.5 * (1 + math.cos(math.pi * max(0, step - start) / max(1, total - start)))
    return peak * (step + 1) / warmup * fall if step < warmup else peak * fall


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's rate to `rate` times its multiplier; a group with a `rate` of its own keeps that."""
    for group in optimizer.param_groups:
        group["lr"] = group.get("rate", rate * group["multiplier"])
