"""Models that a recipe learns or inherits from: other recipes', in folders, or of other projects."""

from __future__ import annotations

from collections.abc import Mapping
from os.path import normpath
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from flame_core.names import Name
from flame_core.params.changed_values import changed_values
from flame_core.params.sampling import LinkedPath
from flame_core.params.section import Positive, Section

if TYPE_CHECKING:
    from flame_core.params.training import TrainParams


def _foreign_model(source: str) -> str:
    """`source`, if it names a model of another project that has texts."""
    kind, _, rest = source.partition(":")
    if kind == "timm":
        raise ValueError("a backbone of timm has no texts, so it has no affinities; name a CLIP or SigLIP")
    if kind not in ("transformers", "open_clip") or not rest.strip():
        raise ValueError(
            f"{source!r} is no kind of teacher: write transformers:<folder or hub id>, or open_clip:<architecture>@"
            "<weights>; or name a recipe, or the path of a model of this project"
        )
    if kind == "open_clip" and not all(rest.partition("@")):
        raise ValueError(f"{source} names no weights: write open_clip:<architecture>@<name or file>")
    return source


class ModelLink(Section):
    """A trained model: another recipe's, or one in a folder."""

    recipe: Name | None = Field(default=None, description="a recipe that `recipes` of params.yaml lists")
    path: LinkedPath | None = Field(default=None, description="a folder with config.json and model.safetensors")


class TeacherParams(ModelLink):
    """The model that a recipe learns from: another recipe's, one in a folder, or a CLIP of another project."""

    model: Annotated[str, AfterValidator(_foreign_model)] | None = Field(
        default=None,
        description="a CLIP or SigLIP with its own texts: transformers:<folder or hub id>[@<revision>] or "
        "open_clip:<architecture>@<weights>",
    )
    copies: Positive | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # a recipe without it is recorded as it always was
        description="crops of each picture whose vectors by the teacher are stored before the first step; epoch e has "
        "crop e mod copies; null: the teacher runs in every step, and every epoch has new crops",
    )

    @model_validator(mode="after")
    def _names_one(self) -> TeacherParams:
        if [self.recipe, self.path, self.model].count(None) != 2:
            raise ValueError("name one teacher: a recipe, a path or a model")
        return self


class InheritParams(ModelLink):
    """The model whose weights a recipe's tower begins with: of every tensor the first rows and columns that fit."""

    blocks: Literal["interval", "first"] | list[Annotated[int, Field(ge=0)]] = Field(
        default="interval",
        description="blocks of that model that are inherited; interval: every n-th from the first, n = its blocks // "
        "own; first: the first; or their numbers from 0, as many as the tower has",
    )
    projector: bool = Field(
        default=True, description="whether the head is inherited too; false: drawn anew, such as for another LLM"
    )

    @model_validator(mode="after")
    def _names_one(self) -> InheritParams:
        if (self.recipe is None) == (self.path is None):
            raise ValueError("name one model: a recipe or a path")
        return self

    @property
    def how(self) -> dict[str, Any]:
        """What decides the weights beside the content of that model."""
        return {name: value for name, value in changed_values(self).items() if name not in ModelLink.model_fields}


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
