"""Which recipes a recipe learns or inherits from."""

from __future__ import annotations

from collections.abc import Mapping
from os.path import normpath
from pathlib import PurePosixPath

from flame_core.params.training import ModelLink, TrainParams


def recipe_of(link: ModelLink | None) -> str | None:
    """The recipe whose model is linked to, however it is named; None of a folder from elsewhere."""
    if link is None or link.path is None:
        return link and link.recipe
    parts = PurePosixPath(normpath(link.path)).parts
    return parts[2] if parts[:2] == ("data", "models") and len(parts) == 3 else None


def recipe_sources(recipe: TrainParams) -> dict[str, str]:
    """{`teacher`, `inherit`: the recipe whose model that is}."""
    found = {"teacher": recipe_of(recipe.teacher), "inherit": recipe_of(recipe.inherit)}
    return {what: name for what, name in found.items() if name is not None}


def with_sources(train: Mapping[str, TrainParams], name: str) -> list[str]:
    """A recipe, and all recipes that it learns or inherits from, directly or through others; the recipe first."""
    found = [name]
    for each in found:
        sources = dict.fromkeys(recipe_sources(train[each]).values())  # a teacher may be inherited from as well
        found += [source for source in sources if source in train and source not in found]
    return found


def teacher_recipe(recipe: TrainParams) -> str | None:
    """The recipe whose model a recipe learns from, however it is named; None of a folder from elsewhere."""
    return recipe_of(recipe.teacher)
