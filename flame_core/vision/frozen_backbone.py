"""`model.train` of a recipe: which blocks of a backbone learn.

What is frozen has no gradients and stays in evaluation mode.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from flame_core.errors import ParamsError
from flame_core.params import LastBlocks, TrainParams
from flame_core.vision.feature_maps import batch_norms

_BLOCKS = ("blocks", "stages", "layers")  # timm's names


def freeze_backbone(backbone: nn.Module, train: Literal["all", "none"] | LastBlocks) -> None:
    """Freeze what does not learn.

    Raises:
        ParamsError: there are not so many blocks, or it is not known what the blocks are.
    """
    if train == "all":
        return
    learns = () if train == "none" else _last(backbone, train.last_blocks)
    fixed = {id(norm) for norm in batch_norms(backbone)}
    for name, weight in backbone.named_parameters():
        if not name.startswith(learns):
            weight.requires_grad_(False)
    for name, module in backbone.named_modules():
        if not f"{name}.".startswith(learns) or id(module) in fixed:
            module.training = False


def require_statistics(backbone: nn.Module, recipe: TrainParams) -> None:
    """Refuse batch norms without statistics, which do not change in a training.

    Raises:
        ParamsError: the recipe begins with random weights.
    """
    if batch_norms(backbone) and recipe.model.init is None and recipe.inherit is None:
        raise ParamsError(
            f"{recipe.model.backbone!r} has batch norms, which keep the statistics that they begin with: name trained "
            "weights in model.init, or take a backbone with layer norms",
            key="train.model.backbone",
        )


def _last(backbone: Any, count: int) -> tuple[str, ...]:
    """What the names begin with of the last blocks and of all that follows them."""
    names = [name for name, _ in backbone.named_children()]
    part = next((name for name in _BLOCKS if name in names), None)
    if part is None:
        raise ParamsError(
            f"it is not known what the blocks of {type(backbone).__name__} are; take all or none",
            key="train.model.train",
        )
    total = len(getattr(backbone, part))
    if count >= total:
        raise ParamsError(
            f"last_blocks {count}, and the backbone has {total} {part}; take fewer, or all", key="train.model.train"
        )
    behind = names[names.index(part) + 1 :]
    return tuple(f"{name}." for name in [*(f"{part}.{number}" for number in range(total - count, total)), *behind])
