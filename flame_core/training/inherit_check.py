"""Whether a recipe's tower can inherit from the model that it names, as far as params or that model's config show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from flame_core.errors import ParamsError
from flame_core.graph.links import links
from flame_core.layout import Layout
from flame_core.model_files import CONFIG
from flame_core.params import ModelParams, Params, TrainParams, recipe_sources
from flame_core.params.recipe_files import recipe_key


def inherit_faults(params: Params, layout: Layout, recipe: TrainParams) -> Iterator[tuple[tuple[str, ...], str]]:
    """(key, why) the tower cannot inherit, if so; without weights, so it costs almost nothing."""
    import torch

    from flame_core.vision.inheritance import begun_with, plan
    from flame_core.vision.tower import ImageTower

    if recipe.inherit is None:
        return
    name = recipe_sources(recipe).get("inherit")
    if name is not None:
        model = params.train[name].model if name in params.train else None
    else:
        model = _model_in(links(layout, recipe)["inherit"])
    if model is None:
        return
    try:
        with torch.device("meta"):
            source = ImageTower(model, hidden=8, facets=1)
            own = begun_with(recipe.model, source) if recipe.learns_masks else recipe.model
            tower = ImageTower(own, hidden=8, facets=1)
        plan(tower, source, recipe.inherit)
    except ParamsError as error:
        key = recipe_key(error)
        if key[:1] == ("inherit",):
            yield key, error.message
        else:  # one of the towers cannot be made
            yield ("inherit",), str(error)


def _model_in(folder: Path) -> ModelParams | None:
    """The params of the tower in a model folder; None if they cannot be read, which `flame train` refuses."""
    from flame_core.vision.tower import tower_params

    try:
        return tower_params(json.loads((folder / CONFIG).read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None
