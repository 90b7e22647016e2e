"""Which weights a recipe trains, and how fast: AdamW, without decay on 1-d parameters, and multipliers of its rate."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from flame_core.errors import ParamsError
from flame_core.objectives.objective import Objective
from flame_core.params import TrainParams
from flame_core.stepping.weight_decay import parameter_groups
from flame_core.vision.layer_rates import layer_rates


def create_optimizer(towers: nn.Module, objective: Objective, params: TrainParams) -> torch.optim.AdamW:
    """AdamW over the towers' matrices with decay, their 1-d parameters without, and the objective's own groups.

    Each group has a `multiplier` of the learning rate.

    Raises:
        ParamsError: nothing is trained.
    """
    optimizer = params.optimizer
    trained: dict[float, list[nn.Parameter]] = {1.0: []}
    by_layer = _rates_by_layer(towers, optimizer.layer_decay)
    for name, weight in towers.named_parameters():
        if weight.requires_grad:
            rate = rate_multiplier(name, optimizer.multipliers) * by_layer.get(name, 1.0)
            trained.setdefault(rate, []).append(weight)
    groups = [
        group
        for multiplier, weights in trained.items()
        for group in parameter_groups(weights, optimizer.weight_decay, multiplier)
    ]
    groups += objective.groups(optimizer)
    weights = [weight for group in groups for weight in group["params"]]
    if not weights:
        raise ParamsError("they freeze all that the recipe trains", key="train.optimizer.multipliers")
    fused = weights[0].is_cuda  # one kernel for all weights; on a CPU the plain one, whose bytes must not change
    return torch.optim.AdamW(
        groups, lr=optimizer.learning_rate, betas=optimizer.betas, eps=optimizer.eps, fused=fused or None
    )


def _rates_by_layer(towers: nn.Module, decay: float | None) -> dict[str, float]:
    """{weight: factor of its rate} of the image tower's backbone; none if all layers have the same."""
    if decay is None:
        return {}
    rates = layer_rates(towers.get_submodule("image.backbone"), decay)
    return {f"image.backbone.{name}": rate for name, rate in rates.items()}


def rate_multiplier(name: str, multipliers: Mapping[str, float]) -> float:
    """The multiplier of a tower's weight or module: that of the longest key that its name begins with, or 1."""
    return max(
        ((len(start), value) for start, value in multipliers.items() if f"{name}.".startswith(f"{start}.")),
        default=(0, 1.0),
    )[1]


def freeze(towers: nn.Module, multipliers: Mapping[str, float]) -> None:
    """Freeze weights and modules with a multiplier of 0: no gradients, and evaluation mode.

    Raises:
        ParamsError: a multiplier applies to no weight.
    """
    require_weights(towers, multipliers)
    for name, weight in towers.named_parameters():
        if rate_multiplier(name, multipliers) == 0:
            weight.requires_grad_(False)
    for name, module in towers.named_modules():
        if rate_multiplier(name, multipliers) == 0:
            module.training = False  # only this module, since a part of it may be trained


def require_weights(towers: nn.Module, multipliers: Mapping[str, float]) -> None:
    """Refuse multipliers that no weight's name begins with.

    Raises:
        ParamsError: names the first such multiplier, and the beginnings of names that exist.
    """
    names = [name for name, _ in towers.named_parameters()]
    for start in multipliers:
        if not any(f"{name}.".startswith(f"{start}.") for name in names):
            known = ", ".join(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
            raise ParamsError(
                f"no weight's name begins with {start!r}; they begin with {known}", key="train.optimizer.multipliers"
            )
