"""What a picture costs in the tower that `codes.tower` or a recipe names, counted without weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import CodesParams, ModelParams, Params, TrainParams
from flame_core.section_stages import linked_place

_HIDDEN = 1  # dimensions of the texts' space: the head is not run


@dataclass(frozen=True)
class TowerShape:
    """FLOPs of a picture's forward pass, its number of patches L and their dimensions D."""

    flops: float
    patches: int
    dims: int


def recipe_shape(recipe: TrainParams) -> TowerShape:
    """The shape of a recipe's backbone."""
    return _of_model(recipe.model)


def codes_shape(params: Params, chosen: CodesParams, layout: Layout) -> TowerShape | str:
    """The shape of the tower that is coded, or why it cannot be counted yet.

    Raises:
        InputError: timm does not know the backbone.
    """
    tower = chosen.tower
    if tower.timm is not None:
        return _of_timm(tower.timm.partition("@")[0])
    if tower.recipe is not None:
        return recipe_shape(params.train[tower.recipe])
    folder = linked_place(layout, tower.path or "")
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))  # as in vision.tower, which imports torch
        return recipe_shape(TrainParams.model_validate(config["recipe"]))
    except (OSError, ValueError, KeyError):
        return f"the tower {tower.path} is not there yet"


def _of_model(model: ModelParams) -> TowerShape:
    import torch

    from flame_core.vision.tower import ImageTower

    with torch.device("meta"):  # sizes without values
        tower = ImageTower(model.model_copy(update={"facet_blocks": None, "head": "pooled"}), _HIDDEN, 1)
    return _counted(tower.patches, torch.zeros(1, 3, model.image_size, model.image_size, device="meta"))


def _of_timm(name: str) -> TowerShape:
    import timm
    import torch
    from timm.data.config import resolve_model_data_config

    try:
        with torch.device("meta"):
            backbone: Any = timm.create_model(name, pretrained=False, num_classes=0).eval()
    except RuntimeError as error:
        raise InputError(f"codes.tower: timm {name} cannot be made ({error})") from None
    prefix = backbone.num_prefix_tokens
    size = resolve_model_data_config(backbone)["input_size"]
    return _counted(
        lambda pictures: backbone.forward_features(pictures)[:, prefix:], torch.zeros(1, *size, device="meta")
    )


def _counted(run: Any, picture: Any) -> TowerShape:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        _, patches, dims = run(picture).shape
    return TowerShape(counter.get_total_flops(), patches, dims)
