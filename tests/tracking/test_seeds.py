"""Trainings that differ in their seed alone, from runs in MLflow's embedded store."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from flame_core.cli import app
from flame_core.errors import InputError
from flame_core.tracking.history import read_history
from flame_core.tracking.seeds import rows, settings_of
from tests.measuring import world
from tests.stages.pipeline import ROOT
from tests.tracking.test_history import ENGLISH, train

OTHER = "classification/top1"


def described(seed: int, **changes: str) -> dict[str, str]:
    params = {"train.seed": str(seed), "train.epochs": "8", "recipes": '["plain"]', "evaluate.gates.least": "0.1"}
    return params | {name.replace("__", "."): value for name, value in changes.items()}


@pytest.fixture
def models(tracked, address):
    """Three seeds, of which one was trained twice; other epochs, other data and other pictures; another recipe."""

    def plain(minute: int, value: float, params: dict[str, str], **more: str) -> None:
        train(tracked, address, "plain", minute, {ENGLISH: value}, params=params, **more)

    plain(1, 0.9, described(0))
    plain(2, 0.30, described(2, recipes='["plain", "rival"]', evaluate__gates__least="0.2", text__gates__max="0.9"))
    plain(3, 0.20, described(10))
    plain(4, 0.40, described(0))
    plain(5, 0.50, described(0, train__epochs="16"))
    plain(6, 0.60, described(0), shards="55556666")
    plain(7, 0.70, described(1), split="99998888")
    train(tracked, address, "rival", 8, {ENGLISH: 0.1, OTHER: 0.5}, params=described(0))
    train(tracked, address, "rival", 9, {ENGLISH: 0.3}, params=described(1))
    train(tracked, address, "siglip", 10, {ENGLISH: 0.8})  # a baseline has no params
    return read_history(world.params(tracked.root), tracked)


def test_only_the_seed_may_differ_and_of_one_seed_the_newest_counts(models):
    assert [(*row[:3], row[-1]) for row in rows(settings_of(models.models), [])] == [
        ("plain", "train.epochs=8, data shards=33334444", "0, 2, 10", "11112222"),
        ("plain", "train.epochs=16, data shards=33334444", "0", "11112222"),
        ("plain", "train.epochs=8, data shards=55556666", "0", "11112222"),
        ("plain", "train.epochs=8, data shards=33334444", "1", "99998888"),
        ("rival", "", "0, 1", "11112222"),
    ]


def test_another_selection_is_another_setting_and_another_teacher_is_not(tracked, address):
    for minute, chosen, teacher in ((1, "a", "b"), (2, "a", "c"), (3, "d", "c")):
        linked = {
            "selection": {"path": "keys.parquet", "content": chosen},
            "teacher": {"path": "t", "content": teacher},
        }
        tags = {"flame.linked": json.dumps(linked)}
        train(tracked, address, "plain", minute, {ENGLISH: 0.5}, params=described(minute), **tags)
    found = settings_of(read_history(world.params(tracked.root), tracked).models)
    assert [[*each.models] for each in found] == [["1", "2"], ["3"]]
    assert [row[1].partition("=")[0] for row in rows(found, [])] == ["data selection"] * 2


def test_figures_stand_beside_their_difference_from_a_recipe_on_the_same_pictures(models):
    settings = settings_of(models.models)
    assert [row[3:5] for row in rows(settings, [ENGLISH, OTHER])] == [
        ("30.0 ± 10.0", "not measured"),
        ("50.0", "not measured"),
        ("60.0", "not measured"),
        ("70.0", "not measured"),
        ("20.0 ± 14.1", "50.0"),
    ]
    against = rows(settings, [ENGLISH], "rival")
    assert [row[3] for row in against[:1] + against[3:]] == ["30.0 ± 10.0 (+10.0, +0.9 SE)", "70.0", "20.0 ± 14.1"]
    settings += settings_of([replace(each, recipe="third") for each in models.models[:4]])
    (third,) = (row for row in rows(settings, [ENGLISH], "plain") if row[0] == "third")
    assert third[3] == "30.0 ± 10.0 (+0.0, +0.0 SE)"  # against the same epochs and data, not the newest of the others
    with pytest.raises(InputError, match=r"--against rivals: .* did you mean 'rival'\? it has plain, rival, third"):
        rows(settings, [ENGLISH], "rivals")


def test_the_command_shows_them(tracked, address, monkeypatch):
    for name in ("params.yaml", "recipes"):
        (tracked.root / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tracked.root)
    train(tracked, address, "plain", 1, {ENGLISH: 0.25}, params=described(0))
    one = CliRunner().invoke(app, ["tracking", "seeds"], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert "train.seed=1` trains another" in one.output
    train(tracked, address, "plain", 2, {ENGLISH: 0.35}, params=described(1))
    two = CliRunner().invoke(app, ["tracking", "seeds"], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert "30.0 ± 7.1" in two.output and "trains another" not in two.output
