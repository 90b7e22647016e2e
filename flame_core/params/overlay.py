"""Merges `train:` of params.yaml into every recipe, whatever its loss.

Values merge key by key. Only `objective` is special, because one overlay applies to recipes with different losses, and
one recipe may need other values, such as a student that is smaller than its teacher:

    train:
      objective: {logit_scale: 12.0}           # every recipe; a recipe whose loss lacks such a key is an error
      by_objective:
        infonce: {logit_scale: 20.0}           # the recipes with that loss; `objective` wins over it
      by_recipe:
        student: {model: {backbone_options: {embed_dim: 96}}}    # that recipe; wins over all of the above

An overlay that names another loss replaces the recipe's whole `objective`: a loss does not inherit another's values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from flame_core.params.objectives import OBJECTIVES
from flame_core.params.places import BY_OBJECTIVE, BY_RECIPE
from flame_core.params.training import TrainParams
from flame_core.params.validation import Fault, examine, merge


def overlay_of(overrides: dict[str, Any], recipe: str) -> dict[str, Any]:
    """What is laid over a recipe: all of `train:`, and over that its own part of `by_recipe`."""
    plain = {key: value for key, value in overrides.items() if key != BY_RECIPE}
    given = overrides.get(BY_RECIPE, {})
    own = given.get(recipe, {}) if isinstance(given, dict) else {}
    return merge(plain, own) if isinstance(own, dict) else plain


def by_recipe_faults(overrides: Mapping[str, Any], known: Collection[str]) -> Iterator[Fault]:
    """What is wrong with a `by_recipe`: a recipe that has no file, or a wrong value, even if it is not listed."""
    given = overrides.get(BY_RECIPE, {})
    above = ("train", BY_RECIPE)
    if not isinstance(given, dict):
        yield Fault(above, "must be a mapping of recipes to values of theirs")
        return
    for name, values in given.items():
        if name not in known:
            yield Fault((*above, str(name)), f"no such recipe; the recipes are {', '.join(known)}")
        elif not isinstance(values, dict):
            yield Fault((*above, name), "must be a mapping of values that override the recipe")
        else:
            plain = {key: value for key, value in values.items() if key != "objective"}  # seen with its recipe
            _, faults = examine(TrainParams, plain, lenient=True)
            yield from (fault._replace(key=(*above, name, *fault.key)) for fault in faults)


def without_effect(override: Mapping[str, Any], content: Mapping[str, Any]) -> list[str]:
    """The keys below `train` that an override sets, and that `by_recipe` sets otherwise for every listed recipe.

    Args:
        override: what it sets, nested as in params.
        content: the params with all overrides; need not be valid.
    """
    train, recipes = content.get("train"), content.get("recipes")
    given = train.get(BY_RECIPE) if isinstance(train, dict) else None
    if not isinstance(given, dict) or not isinstance(recipes, list):
        return []
    replaced = [set(_set_otherwise(override.get("train"), given.get(str(name)))) for name in recipes]
    return [".".join(("train", *key)) for key in sorted(set.intersection(*replaced))] if replaced else []


def _set_otherwise(first: Any, second: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys that two mappings set to different values; of a mapping and another value, the key of both."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return
    for part in first.keys() & second.keys():
        key = (*above, str(part))
        if isinstance(first[part], dict) and isinstance(second[part], dict):
            yield from _set_otherwise(first[part], second[part], key)
        elif first[part] != second[part]:
            yield key


def lay_over(content: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The content of a recipe's file, overridden by `train:`; keys of another loss are left out (`foreign_keys`)."""
    plain = {key: value for key, value in overrides.items() if key != BY_OBJECTIVE}
    merged = merge(content, plain)
    name, over = objective_name(content, overrides), plain.get("objective", {})
    if name is None or not isinstance(over, dict):
        return merged  # refused with the recipe
    own = content.get("objective") or {"name": _default_objective()}
    base = own if name == own["name"] else {"name": name}
    of_loss = overrides.get(BY_OBJECTIVE, {})
    of_loss = of_loss.get(name, {}) if isinstance(of_loss, dict) else {}
    foreign = {key for key, _ in foreign_keys(content, overrides)}
    over = {key: value for key, value in over.items() if key not in foreign}
    return {**merged, "objective": merge(merge(base, of_loss if isinstance(of_loss, dict) else {}), over)}


def objective_name(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> str | None:
    """The loss of a recipe under an overlay; None if it names none that there is."""
    own = content.get("objective") or {"name": _default_objective()}
    over = overrides.get("objective", {})
    name = (over.get("name") if isinstance(over, dict) else None) or (
        own.get("name") if isinstance(own, dict) else None
    )
    return name if isinstance(name, str) and name in OBJECTIVES else None


def foreign_keys(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each key that the overlay sets in `objective` and that only other losses have, with what to write instead."""
    name, over = objective_name(content, overrides), overrides.get("objective", {})
    if name is None or not isinstance(over, dict):
        return
    for key in over:
        others = [other for other, known in OBJECTIVES.items() if key in known.model_fields]
        if key not in OBJECTIVES[name].model_fields and others:
            yield (
                key,
                f"trains with {name}, which has no {key}; write "
                f"{' and '.join(f'train.{BY_OBJECTIVE}.{other}.{key}' for other in others)} to set it for the "
                "recipes with that loss only",
            )


def by_objective_faults(overrides: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong with a `by_objective`: an unknown loss or a wrong value, even if no recipe uses that loss."""
    given = overrides.get(BY_OBJECTIVE, {})
    above = ("train", BY_OBJECTIVE)
    if not isinstance(given, dict):
        yield Fault(above, f"must be a mapping of losses ({', '.join(OBJECTIVES)})")
        return
    for name, values in given.items():
        if name not in OBJECTIVES:
            yield Fault((*above, name), f"no such loss; the losses are {', '.join(OBJECTIVES)}")
        elif not isinstance(values, dict) or "name" in values:
            yield Fault((*above, name), "must be a mapping of that loss's values, without its name")
        else:
            _, faults = examine(OBJECTIVES[name], values)
            yield from (fault._replace(key=(*above, name, *fault.key)) for fault in faults)


def _default_objective() -> str:
    return TrainParams.model_fields["objective"].default.name
