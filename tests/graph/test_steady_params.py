"""Params that change while a stage runs are never recorded as those that it has read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from flame_core.commands.run_stage import run_stage
from flame_core.errors import ParamsError
from flame_core.graph.steady_params import listed_params, require_steady
from flame_core.layout import Layout
from flame_core.params import merge, read_yaml
from flame_core.stages import train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    for name in ("dvc.yaml", "params.yaml", "versions.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    return Layout.find(tmp_path)


def lay_over(file: str, values: dict) -> Callable[[Layout], object]:
    def edit(layout: Layout) -> None:
        path = layout.root / file
        path.write_text(yaml.safe_dump(merge(read_yaml(path), values)))

    return edit


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lay_over("params.yaml", {"train": {"seed": 5}}), r"params\.yaml \(train\) changed while train@flame ran"),
        (lay_over("recipes/flame.yaml", {"epochs": 5}), r"^recipes/flame\.yaml changed"),
        (lay_over("versions.yaml", {"train": 999}), r"versions\.yaml \(train\)"),
        (lambda layout: (layout.root / "recipes/flame.yaml").unlink(), r"^recipes/flame\.yaml changed"),
        (lambda layout: layout.params.write_text("train: {"), "params.yaml"),
    ],
    ids=["section", "recipe", "version", "removed", "cut"],
)
def test_what_the_stage_lists_must_stay_as_it_is(edit, named, layout):
    before = listed_params(layout, "train@flame")
    edit(layout)
    with pytest.raises(ParamsError, match=named):
        require_steady(layout, "train@flame", before)


@pytest.mark.parametrize(
    "edit",
    [
        lay_over("params.yaml", {"evaluate": {"confidence": 0.9}}),
        lay_over("recipes/clip.yaml", {"epochs": 5}),
        lay_over("versions.yaml", {"embed": 999}),
        lambda layout: layout.params.write_text("# kept\n" + layout.params.read_text("utf-8"), "utf-8"),
        lambda layout: None,
    ],
    ids=["other-section", "other-recipe", "other-version", "comment", "nothing"],
)
def test_anything_else_may_change(edit, layout):
    before = listed_params(layout, "train@flame")
    edit(layout)
    require_steady(layout, "train@flame", before)


def test_a_stage_of_a_project_without_a_graph_lists_nothing(layout):
    (layout.root / "dvc.yaml").unlink()
    assert listed_params(layout, "train@flame") == {}


def test_a_stage_that_dvc_runs_fails_so_that_dvc_records_nothing(layout, monkeypatch):
    def run(params, layout, recipe) -> None:
        lay_over("params.yaml", {"train": {"seed": 5}})(layout)

    monkeypatch.setattr(train, "run", run)
    run_stage("train", recipe="flame")  # by hand: nothing is recorded
    shutil.copy(ROOT / "params.yaml", layout.root)
    monkeypatch.setenv("DVC_STAGE", "train@flame")
    with pytest.raises(ParamsError, match="changed while train@flame ran"):
        run_stage("train", recipe="flame")
