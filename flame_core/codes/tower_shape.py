"""What a picture costs in the tower that `codes.tower` or a recipe names, counted without weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flame_core.errors import InputError
from flame_core.graph.section_stages import linked_place
from flame_core.layout import Layout
from flame_core.model_files import CONFIG
from flame_core.params import CodesParams, ModelParams, Params, ScoresParams, TrainParams
from flame_core.params.scores import TableScorerParams, TowerScorerParams

_HIDDEN = 1  # dimensions of the texts' space: the head is not run


@dataclass(frozen=True)
class TowerShape:
    """FLOPs of a picture's forward pass, its number of patches L and their dimensions D."""

    flops: float
    patches: int
    dims: int


def recipe_shape(recipe: TrainParams) -> TowerShape:
    """The shape of a recipe's backbone."""
    return model_shape(recipe.model)


def codes_shape(params: Params, chosen: CodesParams, layout: Layout) -> TowerShape | str:
    """The shape of the tower that is coded, or why it cannot be counted yet.

    Raises:
        InputError: timm does not know the backbone.
    """
    tower = chosen.tower
    if tower.timm is not None:
        return _of_timm("codes.tower", tower.timm)
    if tower.recipe is not None:
        return recipe_shape(params.train[tower.recipe])
    folder = linked_place(layout, tower.path or "")
    recipe = recipe_in(folder)
    return f"the tower {tower.path} is not there yet" if recipe is None else recipe_shape(recipe)


def recipe_in(model: Path) -> TrainParams | None:
    """The recipe that made the model in a folder; None if there is none."""
    try:
        config = json.loads((model / CONFIG).read_text("utf-8"))
        return TrainParams.model_validate(config["recipe"])
    except (OSError, ValueError, KeyError):
        return None


def scorer_shapes(params: Params, chosen: ScoresParams, layout: Layout) -> dict[str, TowerShape | str]:
    """{scorer: the shape of its model, or why it cannot be counted}; scorers that read a table are left out.

    Raises:
        InputError: timm does not know a backbone.
    """
    found: dict[str, TowerShape | str] = {}
    for name, scorer in chosen.scorers.items():
        if isinstance(scorer, TowerScorerParams):
            found[name] = recipe_shape(params.train[scorer.recipe])
        elif not isinstance(scorer, TableScorerParams):
            found[name] = _of_source(f"scores.scorers.{name}", scorer.source, layout)
    return found


def _of_source(where: str, source: str, layout: Layout) -> TowerShape | str:
    """The shape of the picture side of a source such as timm:<name> or transformers:<folder>."""
    from flame_core.suite.models.source import local_place

    kind, _, name = source.partition(":")
    if kind == "timm":
        return _of_timm(where, name)
    folder = local_place(source, layout)
    return _of_transformers(folder) if folder and folder.is_dir() else f"{source} is no folder on this machine"


def _of_transformers(folder: Path) -> TowerShape | str:
    """The picture tower of a dual encoder or a classifier, made from its config alone."""
    import torch
    from transformers import AutoConfig, AutoModel

    from flame_core.vision.feature_maps import as_tokens

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        config = getattr(config, "vision_config", config)
        with torch.device("meta"):
            tower: Any = AutoModel.from_config(config, trust_remote_code=False).eval()
        size = config.image_size
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        picture = torch.zeros(1, getattr(config, "num_channels", 3), height, width, device="meta")
        return _counted(lambda pictures: as_tokens(tower, tower(pixel_values=pictures).last_hidden_state), picture)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        return f"{folder} cannot be made from its config ({error})"


def model_shape(model: ModelParams) -> TowerShape:
    """The shape of a backbone."""
    import torch

    from flame_core.vision.tower import ImageTower

    with torch.device("meta"):  # sizes without values
        tower = ImageTower(model.model_copy(update={"facet_blocks": None, "head": "pooled"}), _HIDDEN, 1)
    tower.to("meta")  # constants have values
    return _counted(tower.patches, torch.zeros(1, 3, model.image_size, model.image_size, device="meta"))


def _of_timm(where: str, source: str) -> TowerShape:
    """The shape of <name> or <name>@<file>."""
    import timm
    import torch
    from timm.data.config import resolve_model_data_config

    from flame_core.vision.feature_maps import tokens_of

    name = source.partition("@")[0]
    try:
        with torch.device("meta"):
            backbone: Any = timm.create_model(name, pretrained=False, num_classes=0).eval()
    except RuntimeError as error:
        raise InputError(f"{where}: timm {name} cannot be made ({error})") from None
    prefix = getattr(backbone, "num_prefix_tokens", 0)
    size = resolve_model_data_config(backbone)["input_size"]
    return _counted(lambda pictures: tokens_of(backbone, pictures)[:, prefix:], torch.zeros(1, *size, device="meta"))


def _counted(run: Any, picture: Any) -> TowerShape:
    import torch

    from flame_core.flops import flop_counter

    counter = flop_counter()
    with torch.inference_mode(), counter:
        _, patches, dims = run(picture).shape
    return TowerShape(counter.get_total_flops(), patches, dims)
