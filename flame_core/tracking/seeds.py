"""Trainings that differ in nothing but their seed, from MLflow's records: `flame tracking seeds`.

Two trainings belong together if their recipe, all params that a result can follow from, the digests of their training
data and the held-out pictures are the same. The code and linked models are not compared. Of trainings with one seed the
newest counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flame_core.errors import InputError
from flame_core.measuring.over_seeds import compared
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
        split: short digest of the held-out pictures.
        facts: {param or data: value} of all that results follow from, but for the seed.
        models: {seed: the model}, filled in the order of the trainings.
    """

    recipe: str
    split: str
    facts: dict[str, str]
    models: dict[str, MeasuredModel]

    def values(self, metric: str) -> list[float]:
        """The metric in %, of each model that was measured by it."""
        return [100 * each.scores[metric].value for each in self.models.values() if metric in each.scores]


def settings_of(models: Sequence[MeasuredModel]) -> list[Setting]:
    """The settings of trained models, by recipe, the oldest first; baselines have no seed and are left out."""
    found: dict[str, list[Setting]] = {}
    for model in models:
        if SEED not in model.params:
            continue
        facts, alike = _facts(model), found.setdefault(model.recipe, [])
        setting = next((each for each in alike if (each.split, each.facts) == (model.split, facts)), None)
        if setting is None:
            alike.append(setting := Setting(model.recipe, model.split, facts, {}))
        setting.models[model.params[SEED]] = model
    return [each for alike in found.values() for each in alike]


def rows(settings: Sequence[Setting], metrics: Sequence[str], against: str | None = None) -> list[tuple[str, ...]]:
    """(recipe, in what it differs from its other settings, seeds, each metric in %, pictures) of each setting.

    Args:
        settings: of the trainings.
        metrics: names of the headline metrics.
        against: a recipe. Beside each figure is the difference from that of this recipe, on the same pictures, in its
            setting that differs in the fewest facts.

    Raises:
        InputError: there is no training of that recipe.
    """
    by_recipe: dict[str, list[Setting]] = {}
    for each in settings:
        by_recipe.setdefault(each.recipe, []).append(each)
    if against is not None and against not in by_recipe:
        hint = did_you_mean(against, by_recipe)
        known = ", ".join(by_recipe) or "none"
        raise InputError(f"--against {against}: MLflow has no measured training of this recipe;{hint} it has {known}")
    bases = by_recipe.get(against or "", [])
    return [
        (
            each.recipe,
            ", ".join(f"{name}={value}" for name, value in _own(each, by_recipe[each.recipe]).items()),
            ", ".join(sorted(each.models, key=int)),
            *(_figure(each, _nearest(each, bases), metric) for metric in metrics),
            each.split,
        )
        for each in settings
    ]


def _figure(setting: Setting, base: Setting | None, metric: str) -> str:
    if not (values := setting.values(metric)):
        return "not measured"
    return compared(values, base.values(metric) if base is not None and base is not setting else [])


def _nearest(setting: Setting, bases: Sequence[Setting]) -> Setting | None:
    """The one on the same pictures that differs in the fewest facts; of several the newest."""
    found = [each for each in reversed(bases) if each.split == setting.split]
    return min(found, key=lambda each: len(each.facts.items() ^ setting.facts.items()), default=None)


def _facts(model: MeasuredModel) -> dict[str, str]:
    """What a result can follow from, but for the seed."""
    params = {name: value for name, value in model.params.items() if not _is_without_effect(name)}
    data = {f"data {name}": digest[:8] for name, digest in model.data.items()}
    return {name: value for name, value in params.items() if name != SEED} | data


def _is_without_effect(name: str) -> bool:
    return name.startswith(_WITHOUT_EFFECT) or _GATES in name


def _own(setting: Setting, alike: Sequence[Setting]) -> dict[str, str]:
    """Facts of a setting that are not the same in all those of its recipe."""
    names = dict.fromkeys(name for each in alike for name in each.facts)
    return {
        name: setting.facts.get(name, _NONE)
        for name in names
        if len({each.facts.get(name, _NONE) for each in alike}) > 1
    }
