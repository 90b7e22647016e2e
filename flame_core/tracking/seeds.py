"""Trainings that differ in nothing but their seed, from MLflow's records: `flame tracking seeds`.

Two trainings belong together if their recipe, all params that a result can follow from, the digests of their training
data and the held-out pictures are the same. The code and linked models are not compared. Of trainings
with one seed the newest counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flame_core.errors import InputError
from flame_core.measuring.over_seeds import difference, mean_and_deviation
from flame_core.names import did_you_mean
from flame_core.tracking.history import MeasuredModel

SEED = "train.seed"
_WITHOUT_EFFECT = (  # on a figure: what else is trained and measured, and what is judged by it
    "recipes", "promote.", "storage.", "evaluate.benchmarks.", "evaluate.baselines",
)  # fmt: skip
_GATES = ".gates."
_NONE = "(none)"


@dataclass(frozen=True)
class Setting:
    """Trainings of several seeds.

    Attributes:
        recipe: its name.
        own: {param or data: value} in which this setting differs from others of its recipe.
        split: short digest of the held-out pictures.
        models: {seed: the model}.
    """

    recipe: str
    own: dict[str, str]
    split: str
    models: dict[str, MeasuredModel]

    def values(self, metric: str) -> list[float]:
        """The metric in %, of each model that was measured by it."""
        return [100 * each.scores[metric].value for each in self.models.values() if metric in each.scores]


def settings_of(models: Sequence[MeasuredModel]) -> list[Setting]:
    """The settings of trained models, in the order of their first training; baselines have no seed and are left out."""
    grouped: dict[tuple[str, str], list[tuple[dict[str, str], dict[str, MeasuredModel]]]] = {}
    for model in models:
        if SEED in model.params:
            facts, alike = _facts(model), grouped.setdefault((model.recipe, model.split), [])
            seeds = next((seeds for known, seeds in alike if known == facts), None)
            if seeds is None:
                alike.append((facts, seeds := {}))
            seeds[model.params[SEED]] = model
    by_recipe: dict[str, list[dict[str, str]]] = {}
    for (recipe, _), alike in grouped.items():
        by_recipe.setdefault(recipe, []).extend(facts for facts, _ in alike)
    return [
        Setting(
            recipe, _own(facts, by_recipe[recipe]), split, dict(sorted(seeds.items(), key=lambda item: int(item[0])))
        )
        for (recipe, split), alike in grouped.items()
        for facts, seeds in alike
    ]


def rows(settings: Sequence[Setting], metrics: Sequence[str], against: str | None = None) -> list[tuple[str, ...]]:
    """(recipe, what is its own, seeds, each metric in %, pictures) of each setting.

    Args:
        settings: of the trainings.
        metrics: names of the headline metrics.
        against: a recipe. Figures have the difference from its newest setting on the same pictures beside them.

    Raises:
        InputError: there is no training of that recipe.
    """
    recipes = sorted({each.recipe for each in settings})
    if against is not None and against not in recipes:
        hint = did_you_mean(against, recipes)
        raise InputError(f"--against {against}: MLflow has no measured training of this recipe;{hint} it has "
                         f"{', '.join(recipes) or 'none'}")  # fmt: skip
    bases = {each.split: each for each in settings if each.recipe == against}
    return [
        (
            each.recipe,
            ", ".join(f"{name}={value}" for name, value in each.own.items()),
            ", ".join(each.models),
            *(_figure(each, bases.get(each.split), metric) for metric in metrics),
            each.split,
        )
        for each in settings
    ]


def _figure(setting: Setting, base: Setting | None, metric: str) -> str:
    if not (values := setting.values(metric)):
        return "not measured"
    apart = difference(values, base.values(metric)) if base is not None and base is not setting else ""
    return mean_and_deviation(values) + (f" ({apart})" if apart else "")


def _facts(model: MeasuredModel) -> dict[str, str]:
    """What a result can follow from, but for the seed."""
    params = {name: value for name, value in model.params.items() if not _is_without_effect(name)}
    data = {f"data {name}": digest[:8] for name, digest in model.data.items()}
    return {name: value for name, value in params.items() if name != SEED} | data


def _is_without_effect(name: str) -> bool:
    return name.startswith(_WITHOUT_EFFECT) or _GATES in name


def _own(facts: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Facts that are not the same in all settings."""
    names = dict.fromkeys(name for each in others for name in each)
    return {name: facts.get(name, _NONE) for name in names if len({each.get(name, _NONE) for each in others}) > 1}
