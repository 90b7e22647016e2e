"""The command in the header of each recipe is one that the demo's data suit."""

from __future__ import annotations

import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from flame_core.layout import Layout
from flame_core.preflight import check
from tests.preflight.conftest import ROOT
from tests.preflight.test_data_fit import shards

RECIPES = sorted([*(ROOT / "recipes").glob("*.yaml"), *(ROOT / "recipes/linked").glob("*.yaml")])
COMMAND = re.compile(r"^# Command: +(flame run .*(?:\n# {10,}--.*)*)", re.MULTILINE)
LONGER = re.compile(r"^# Demo: +refused: .*((?:\n# {10,}--.*)+)", re.MULTILINE)


def options(text: str) -> list[str]:
    """Words of a command that comments hold, perhaps with a remark in parentheses behind it."""
    return shlex.split(re.sub(r"(?: \\)?\n# +|   \(.*", " ", text))


def command(recipe: Path) -> tuple[list[str], list[str]]:
    """The command of a recipe, and what it says to add for the demo."""
    text = recipe.read_text("utf-8")
    found, longer = COMMAND.search(text), LONGER.search(text)
    assert found is not None, f"{recipe} has no command"
    return options(found[1]), options(longer[1]) if longer else []


def values(words: list[str], option: str) -> list[str]:
    return [after for word, after in pairwise(words) if word == option]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_command_of_a_recipe_fits_the_demo(recipe: Path, tmp_path, monkeypatch) -> None:
    """735 training pictures, of which nothing has been computed yet; a warning would end in a refusal later."""
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shards(layout := Layout.find(tmp_path), 735, 217)
    words, more = command(recipe)
    presets = values(words, "--preset")
    checked = check(layout, [*values(words, "--set"), *values(more, "--set")], presets[0] if presets else None)
    assert checked.faults == [] and checked.warnings == []
    if more:  # it is refused without these
        assert check(layout, values(words, "--set")).warnings
