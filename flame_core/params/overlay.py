"""Merges `train:` of params.yaml into every recipe, whatever its loss.

Values merge key by key. Only `objective` is special, because one overlay applies to recipes with different losses:

    train:
      objective: {logit_scale: 12.0}           # every recipe; a recipe whose loss lacks such a key is an error
      by_objective:
        infonce: {logit_scale: 20.0}           # the recipes with that loss; `objective` wins over it

An overlay that names another loss replaces the recipe's whole `objective`: a loss does not inherit another's values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flame_core.errors import ParamsError
from flame_core.names import shown
from flame_core.params.objectives import OBJECTIVES
from flame_core.params.training import TrainParams
from flame_core.params.validation import merge, validate

BY_OBJECTIVE = "by_objective"


def lay_over(content: dict[str, Any], recipe: Path, overrides: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content of a recipe's file, overridden by `train:` of the file `path`.

    Raises:
        ParamsError: the overlay sets a key of another loss; names both files, the key and what to write.
    """
    plain = {key: value for key, value in overrides.items() if key != BY_OBJECTIVE}
    merged = merge(content, plain)
    own = content.get("objective") or {"name": _default_objective()}
    over = plain.get("objective", {})
    if not isinstance(over, dict):
        return merged  # refused with the recipe
    name = over.get("name", own["name"])
    kind = OBJECTIVES.get(name) if isinstance(name, str) else None
    if kind is None:
        return merged  # refused with the recipe
    for key in over:
        others = [other for other, known in OBJECTIVES.items() if key in known.model_fields]
        if key not in kind.model_fields and others:
            raise ParamsError(
                f"{path}: train.objective.{key}: {recipe} trains with {name}, which has no {key}; write "
                f"{' and '.join(f'train.{BY_OBJECTIVE}.{other}.{key}' for other in others)} to set it for the "
                "recipes with that loss only"
            )
    base = own if name == own["name"] else {"name": name}
    return {**merged, "objective": merge(merge(base, overrides.get(BY_OBJECTIVE, {}).get(name, {})), over)}


def check_by_objective(overrides: dict[str, Any], path: Path) -> None:
    """Refuse a `by_objective` that names an unknown loss or holds a wrong value, even if no recipe uses that loss.

    Raises:
        ParamsError: names the file, the key and what is accepted.
    """
    given = overrides.get(BY_OBJECTIVE, {})
    if not isinstance(given, dict):
        raise ParamsError(f"{path}: train.{BY_OBJECTIVE}: must be a mapping of losses ({', '.join(OBJECTIVES)})")
    for name, values in given.items():
        where = f"{path}: train.{BY_OBJECTIVE}.{shown(name)[1:-1]}"
        if name not in OBJECTIVES:
            raise ParamsError(f"{where}: no such loss; the losses are {', '.join(OBJECTIVES)}")
        if not isinstance(values, dict) or "name" in values:
            raise ParamsError(f"{where}: must be a mapping of that loss's values, without its name")
        validate(OBJECTIVES[name], values, path, prefix=("train", BY_OBJECTIVE, name))


def _default_objective() -> str:
    return TrainParams.model_fields["objective"].default.name
