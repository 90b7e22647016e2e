"""All of `params.yaml`, and how to read it."""

from __future__ import annotations

from os.path import normpath
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field, model_validator

from flame_core.digest import value_digest
from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.names import Name, require_name, shown
from flame_core.params.captions import CaptionParams, IngestParams
from flame_core.params.changed_values import changed_values
from flame_core.params.evaluation import EvaluateParams
from flame_core.params.overlay import check_by_objective, lay_over
from flame_core.params.promotion import PromoteParams
from flame_core.params.recipe_files import known_recipes, read_recipe, recipe_file
from flame_core.params.section import Section
from flame_core.params.sources import Source
from flame_core.params.storage import StorageParams
from flame_core.params.text import LLMParams, TextParams
from flame_core.params.training import TrainParams
from flame_core.params.validation import read_yaml, validate


class Params(Section):
    """`params.yaml`; `train` holds the recipes it names, overrides applied."""

    sources: dict[Name, Source] = Field(min_length=1)
    ingest: IngestParams = IngestParams()
    caption: CaptionParams = CaptionParams()
    llm: LLMParams
    text: TextParams
    recipes: list[Name] = Field(min_length=1)
    train: dict[str, TrainParams]
    evaluate: EvaluateParams = EvaluateParams()
    promote: PromoteParams = PromoteParams()
    storage: StorageParams = StorageParams()

    @property
    def digest(self) -> str:
        """Identifies these params in workspaces, Dagster and MLflow; a new field with a default does not change it."""
        return value_digest(changed_values(self))[:12]

    @model_validator(mode="after")
    def _baselines_have_names_of_their_own(self) -> Params:
        if twice := sorted(set(self.recipes) & set(self.evaluate.baselines)):
            raise ValueError(f"evaluate.baselines: {', '.join(twice)} is the name of a recipe; choose another")
        return self

    @model_validator(mode="after")
    def _recipes_use_embedded_kinds(self) -> Params:
        for name, recipe in self.train.items():
            missing = [kind for kind in recipe.kinds if kind not in self.text.train_kinds]
            if missing:
                raise ValueError(f"recipe {name} draws from {missing}, which text.train_kinds does not embed")
            if recipe.reading == "sentence" and self.text.sentence is None:
                raise ValueError(
                    f"recipe {name} has reading: sentence, and text.sentence is null: say there how they are read, "
                    "or train on facets"
                )
        return self

    @model_validator(mode="after")
    def _teachers_are_trained_first(self) -> Params:
        for name in self.train:
            chain = [name]
            while (teacher := teacher_recipe(self.train[chain[-1]])) is not None:
                if teacher not in self.recipes:
                    raise ValueError(
                        f"recipe {chain[-1]}: its teacher {teacher} is not among the recipes; list it under recipes"
                    )
                if teacher in chain:
                    circle = " learns from ".join([*chain[chain.index(teacher) :], teacher])
                    raise ValueError(f"recipe {name}: {circle}, so none can be trained first")
                chain.append(teacher)
        return self


def teacher_recipe(recipe: TrainParams) -> str | None:
    """The recipe whose model a recipe learns from, however it is named; None of a folder from elsewhere."""
    teacher = recipe.teacher
    if teacher is None or teacher.path is None:
        return teacher and teacher.recipe
    parts = PurePosixPath(normpath(teacher.path)).parts
    return parts[2] if parts[:2] == ("data", "models") and len(parts) == 3 else None


def load_params(layout: Layout) -> Params:
    """Read and validate `params.yaml` and the recipes it names.

    Raises:
        ParamsError: names the file, the key and what is accepted.
    """
    return parse_params(read_yaml(layout.params), layout.params, layout.recipes)


def parse_params(raw: dict[str, Any], path: Path, recipes: Path) -> Params:
    """Validate the content of a params file; messages name `path`, recipe files are in the folder `recipes`."""
    overrides = raw.get("train") or {}
    if not isinstance(overrides, dict):
        raise ParamsError(f"{path}: train: must be a mapping of values that override the recipes")
    check_by_objective(overrides, path)
    trains: dict[str, Any] = {}
    names = raw.get("recipes") or []
    for name in names if isinstance(names, list) else []:
        try:
            recipe = recipe_file(recipes, require_name(str(name)))
        except ValueError as error:
            raise ParamsError(f"{path}: recipes: {shown(str(name))}: {error}") from None
        if not recipe.is_file():
            known = ", ".join(known_recipes(recipes)) or "none"
            raise ParamsError(f"{path}: recipes: {recipe} does not exist (known recipes: {known})")
        content = read_recipe(recipe)
        validate(TrainParams, content, recipe)
        trains[name] = lay_over(content, recipe, overrides, path)
    if not names:
        validate(TrainParams, lay_over({}, path, overrides, path), path, prefix=("train",))
    return validate(Params, {**raw, "train": trains}, path)
