"""Recipes that read what stages have yet to make: every preset is planned in an empty project."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.layout import Layout
from flame_core.planning.plan import plan
from flame_core.planning.start import given
from flame_core.workspace import resolve_params

ROOT = Path(__file__).parents[2]
PRESETS = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))
ONE_BATCH = ["train.batch_size=100", "train.epochs=1"]
PROMPTED = ["recipes=[p-former-align]", "prompts.count=16", "train.kinds=[raw]"]
WEIGHTED = ["recipes=[flame]", "concepts={file: names.txt, weights: {cap: 20}}", "train.sampling={name: weighted}"]
CAPPED = ["recipes=[flame]", "concepts={file: names.txt}", "train.sampling={name: capped, cap: 20}"]
DEDUPLICATED = [
    "recipes=[flame]",
    "semdedup={clusters: 10, vectors: my/vectors}",
    "train.selection=data/semdedup/keys.parquet",
]
SCORES = ["scores.scorers.own={kind: table, path: s.parquet, column: own}", "scores.selections.best={own: {top: 0.25}}"]
SCORED = ["recipes=[flame]", *SCORES, "train.selection=data/scores/best.parquet"]
SOFTLY_CAPPED = [
    "recipes=[flame]",
    *SCORES,
    "train.sampling={name: soft_cap, scores: data/sidecars/score-own, penalty: 0.2}",
]


def trainings(overrides: list[str], preset: str | None, root: Path) -> dict[str, dict[str, str]]:
    params = resolve_params(Layout.find(ROOT), overrides, preset).params
    layout = Layout(root, root)
    sections = plan(params, layout, given(params, layout, 10_000, {}), tflops=1.0, processes=1)
    return {title: section for title, section in sections.items() if title.startswith("training: ")}


@pytest.mark.parametrize("preset", PRESETS)
def test_all_recipes_of_a_preset_are_counted_before_anything_is_there(tmp_path: Path, preset: str):
    found = trainings([], preset, tmp_path)
    assert found and all("steps" in section for section in found.values())


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [(PROMPTED, 100), (WEIGHTED, 100), (CAPPED, 100), (DEDUPLICATED, 100), (SCORED, 25), (SOFTLY_CAPPED, 100)],
)
def test_so_are_recipes_that_read_other_stages(tmp_path: Path, overrides: list[str], steps: int):
    ((_, section),) = trainings([*overrides, *ONE_BATCH], None, tmp_path).items()
    assert section["steps"] == f"{steps} of 100 pictures"


def test_what_no_stage_makes_is_not_counted(tmp_path: Path):
    overrides = ["recipes=[flame]", "train.selection=data/selections/none.parquet"]
    ((_, section),) = trainings(overrides, None, tmp_path).items()
    assert section == {"not counted": "selection of the recipe is not there yet"}
