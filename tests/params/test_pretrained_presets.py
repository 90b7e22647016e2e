"""The commands in the headers of recipes on stored vectors run as they are written, as far as params show."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from flame_core.layout import Layout
from flame_core.training.recipe_check import recipe_faults
from flame_core.vision.stored_features import tower_of
from flame_core.vision.tower import create_backbone
from flame_core.workspace import resolve_params

ROOT = Path(__file__).parents[2]


def command_of(recipe: str) -> list[str]:
    """The words of the command in a recipe's header."""
    lines = (ROOT / f"recipes/linked/{recipe}.yaml").read_text("utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("# Command:"))
    words = lines[start].removeprefix("# Command:")
    while words.endswith("\\"):
        start += 1
        words = words[:-1] + lines[start].removeprefix("#")
    return shlex.split(words)


@pytest.mark.parametrize("recipe", ["lit", "sharelock", "sail"])
def test_a_header_runs_on_the_presets_tower(recipe):
    words = command_of(recipe)
    overrides = [value for flag, value in pairwise(words) if flag == "--set"]
    preset = ROOT / f"presets/{words[words.index('--preset') + 1]}.yaml"
    params = resolve_params(Layout(ROOT, ROOT), overrides, preset).params
    assert list(params.train) == [recipe] and params.features is not None
    own = params.train[recipe]
    assert not list(recipe_faults(own))
    assert tower_of(own.model) == tower_of(params.features.model)
    if own.model.head == "none":
        width = create_backbone(own.model).num_features
        assert own.text_projection is not None and own.text_projection.dim == width


def test_the_presets_differ_in_their_llm_only():
    one, other = (
        resolve_params(Layout(ROOT, ROOT), [], ROOT / f"presets/{name}.yaml").params
        for name in ("demo-pretrained", "demo-pretrained-gemma")
    )
    assert one.train["lit"].identity == other.train["lit"].identity and one.features == other.features
    assert one.llm.name != other.llm.name and one.evaluate == other.evaluate
