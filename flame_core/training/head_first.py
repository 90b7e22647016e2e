"""The schedule "head first, then the tower": a pretrained backbone stays as it is for the first steps.

A new head sends large and random gradients into a backbone, which spoil what it knows; so the head learns first. What
is held has no gradients and stays in evaluation mode. Which steps they are follows from their number alone, so a
training that is interrupted continues as it would have.
"""

from __future__ import annotations

from torch import nn

from flame_core.errors import ParamsError
from flame_core.params import TrainParams
from flame_core.params.auto import Schedule


class HeldBackbone:
    """A backbone that is held in the first `steps` steps; 0 never holds it."""

    def __init__(self, backbone: nn.Module, steps: int) -> None:
        self._weights = [weight for weight in backbone.parameters() if weight.requires_grad]
        self._modules = [module for module in backbone.modules() if module.training]
        self._steps = steps
        self._held = False

    @property
    def held(self) -> bool:
        return self._held

    def before(self, step: int) -> bool:
        """Hold or release it before a step; returns whether that changed anything."""
        held = step < self._steps
        changed, self._held = held != self._held, held
        for weight in self._weights if changed else ():
            weight.requires_grad_(not held)
        for module in self._modules if changed else ():
            module.training = not held
        return changed


def held_steps(params: TrainParams, schedule: Schedule) -> int:
    """For how many steps a recipe holds its backbone.

    Raises:
        ParamsError: for all of them.
    """
    first = params.optimizer.head_first
    if first is None:
        return 0
    steps = first.steps_of(schedule.steps_per_epoch)
    if steps >= schedule.steps:
        raise ParamsError(
            f"{steps} steps, and the training has {schedule.steps}, so the backbone would "
            "never learn: take fewer, or set model.train to none",
            key="train.optimizer.head_first",
        )
    return steps
