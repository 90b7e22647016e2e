"""Whether a recipe can learn from its teacher: the same texts, and a teacher that is not smaller.

`flame params check` and `flame run` look at the params of a teacher that is a recipe, or at the config of a folder;
`flame train` looks at the config of the trained model, before its first step. Whether both are of the same LLM and
layer is checked for every teacher (`graph/link_contents.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flame_core.errors import FlameError, InputError, ParamsError
from flame_core.graph.links import links
from flame_core.layout import Layout
from flame_core.model_files import CONFIG
from flame_core.params import ModelParams, Params, TrainParams, teacher_recipe
from flame_core.suite.models.source import local_place
from flame_core.text.cost import read_shape
from flame_core.text.jobs import recipe_slots, slot_names


def require_teachable(recipe: TrainParams, folder: Path, facets: Sequence[str]) -> None:
    """Refuse a teacher that a recipe cannot learn from.

    Args:
        recipe: the student's.
        folder: of the teacher's model.
        facets: names of the texts that the student draws.

    Raises:
        ParamsError: says what does not fit, and what to do.
    """
    for key, message in _faults(recipe, str(folder), json.loads((folder / CONFIG).read_text("utf-8")), facets):
        raise ParamsError(message, key=f"train.{key}")


def teachable_faults(params: Params, layout: Layout, name: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """(key, what is wrong) of a recipe and its teacher, as far as the teacher's params or files show."""
    recipe = params.train[name]
    source = recipe.teacher.model if recipe.teacher else None
    if source is not None:
        place = source.partition(":")[2]
        if place.startswith(("/", "~", ".")) and local_place(source, layout) is None:
            yield ("teacher", "model"), f"{layout.resolve(place)} is no folder: correct the path, or name a hub id"
        yield from _other_dimensions(params, layout, recipe, source)
        return
    names = slot_names(params.text)
    if (other := teacher_recipe(recipe)) is not None:
        if (taught := params.train.get(other)) is None:
            return  # refused with the params
        config = {"recipe": taught.dump(), "facets": [names[i] for i in recipe_slots(names, taught)]}
    else:
        other = str(links(layout, recipe)["teacher"])
        try:
            config = json.loads((Path(other) / CONFIG).read_text("utf-8"))
        except (OSError, ValueError):
            return  # missing or damaged, which is said of all teachers
    for key, message in _faults(recipe, other, config, [names[i] for i in recipe_slots(names, recipe)]):
        yield (key,), message


def _other_dimensions(
    params: Params, layout: Layout, recipe: TrainParams, source: str
) -> Iterator[tuple[tuple[str, ...], str]]:
    """(key, message) if texts learn the vectors of a CLIP on this machine, and have another number of dimensions."""
    layers, folder = recipe.text_projection, local_place(source, layout)
    if layers is None or folder is None or not folder.is_dir():
        return
    if not any(term.name == "text_distillation" for term in (recipe.objective, *recipe.terms)):
        return
    from flame_core.suite.models.transformers_clip import text_dimensions

    own = layers.dim
    if own is None:
        with suppress(InputError):  # of an LLM that is not fetched
            own = read_shape(params, layout.llm / params.llm.name).hidden
    width = text_dimensions(folder)
    if own is not None and width not in (None, own):
        told = str(own) if layers.dim else f"null, which stands for the {own} of the LLM"
        yield (
            ("text_projection", "dim"),
            f"{told}, and the texts of its teacher {source} have {width} dimensions: set it to {width}",
        )


def _faults(
    recipe: TrainParams, teacher: str, config: Mapping[str, Any], facets: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """(key in the recipe, what is wrong)."""
    from flame_core.objectives import recipe_needs
    from flame_core.vision.tower import tower_params

    taught = recipe_needs(recipe).taught
    if not taught:
        return
    try:
        model, seen = tower_params(config), list(config["facets"])
        own_texts = any(config["recipe"].get(name) is not None for name in ("text_tower", "text_projection"))
    except (KeyError, TypeError, ValueError):
        yield "teacher", f"{teacher} is no model of this project: name the folder of a model that `flame train` made"
        return
    if own_texts:
        yield (
            "teacher",
            f"{teacher} was trained with a text tower of its own, so its vectors are not in the space of the "
            "stored texts: take a teacher that was trained on these",
        )
    elif unseen := [name for name in facets if name not in seen]:
        yield (
            "kinds",
            f"this recipe draws the texts {', '.join(unseen)}, and its teacher {teacher} was trained only on "
            f"{', '.join(seen)}: take fewer kinds or the reading of the teacher, or another teacher",
        )
    if model.head == "lexical" and "z" in taught:
        yield (
            "teacher",
            f"the z of {teacher} are weights of words (model.head lexical), which a term compares with "
            "vectors: take a teacher with another head, or match feature pooled or cls",
        )
    if message := _larger(recipe.model, model):
        yield "model", message


def _larger(student: ModelParams, teacher: ModelParams) -> str | None:
    """Why the student is larger than its teacher, if it is; None too if one cannot be built, which others say."""
    import torch

    from flame_core.objectives.teacher import backbone_weights, larger
    from flame_core.vision.tower import ImageTower

    try:
        with torch.device("meta"):
            own, other = (backbone_weights(ImageTower(each, hidden=8, facets=1)) for each in (student, teacher))
    except FlameError:
        return None
    return larger(own, other)
