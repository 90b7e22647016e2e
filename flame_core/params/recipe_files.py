"""Where a recipe's file stands.

`recipes/<name>.yaml` is the file of a recipe that needs only shards, captions and embeddings. A recipe that needs more
(a teacher, sidecars, a selection) stands in `recipes/linked/<name>.yaml`; the stage `link-<name>` makes
`recipes/<name>.yaml` of it, with the digests of what it needs under `linked:`, for DVC to compare
(docs/decisions/edges-between-models.md). Only DVC reads that made file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flame_core.errors import ParamsError
from flame_core.params.places import short
from flame_core.params.validation import read_placed, read_yaml
from flame_core.params.yaml_text import Placed

FOLDER = "linked"
DIGESTS = "linked"  # the section that only a made file has


def recipe_file(recipes: Path, name: str) -> Path:
    """The file in which a recipe is written by hand, whether or not it exists."""
    linked = recipes / FOLDER / f"{name}.yaml"
    return linked if linked.is_file() else recipes / f"{name}.yaml"


def recipe_key(error: ParamsError) -> tuple[str, ...]:
    """The key that an error is about, from the recipe's root; none if it names no key."""
    return tuple(error.key.removeprefix("train.").split(".")) if error.key else ()


def is_made(path: Path) -> bool:
    """Whether a link made this file; one that is no YAML was written by hand."""
    try:
        return path.parent.name != FOLDER and DIGESTS in read_yaml(path)
    except ParamsError:
        return False


def read_recipe(path: Path) -> dict[str, Any]:
    """The content of the file that `recipe_file` told.

    Raises:
        ParamsError: it cannot be read, or it is not clear which file is the recipe.
    """
    _require_source(path, content := read_yaml(path))
    return content


def read_placed_recipe(path: Path) -> Placed:
    """The same with the line of every key.

    Raises:
        ParamsError: as `read_recipe`, but keys given twice are told by the result.
    """
    placed = read_placed(path, short(path))
    _require_source(path, placed.value)
    return placed


def _require_source(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a recipe of which it is not clear which file it is written in."""
    if path.parent.name != FOLDER:
        if DIGESTS in content:
            source = path.parent / FOLDER / path.name
            raise ParamsError(f"{path} was made from {source}, which does not exist: restore that, or remove {path}")
        return
    made = path.parent.parent / path.name
    if made.is_file() and DIGESTS not in read_yaml(made):
        raise ParamsError(f"{path} and {made} are both the recipe {path.stem}: remove one")


def known_recipes(recipes: Path) -> list[str]:
    """Names of all recipes that have a file."""
    return sorted({path.stem for folder in (recipes, recipes / FOLDER) for path in folder.glob("*.yaml")})
