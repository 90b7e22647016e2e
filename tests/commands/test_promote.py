"""What `flame promote` says if no model is to be judged."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from flame_core.cli import app
from flame_core.tracking.promotion import Promotion


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (".", "none; the next other model that `flame run`"),
        (".flame/runs/0123456789ab", "none; `flame register RECIPE --workspace 0123456789ab`"),
    ],
)
def test_without_a_challenger_it_says_what_makes_one(tmp_path, monkeypatch, place, said):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    for folder in (tmp_path, tmp_path / place):
        for name in ("dvc.yaml", "params.yaml"):
            (folder / name).touch()
    monkeypatch.chdir(tmp_path / place)
    monkeypatch.setattr("flame_core.tracking.store.warn_of_waiting", lambda layout: None)
    monkeypatch.setattr("flame_core.params.load_params", lambda layout: None)
    monkeypatch.setattr("flame_core.tracking.promotion.promote", lambda *given: Promotion(None, None, None))
    done = CliRunner().invoke(app, ["promote"])
    assert done.exit_code == 0 and said in " ".join(done.output.split())


def test_a_version_that_is_the_champion_already_is_named(tmp_path, monkeypatch):
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flame_core.tracking.store.warn_of_waiting", lambda layout: None)
    monkeypatch.setattr("flame_core.params.load_params", lambda layout: None)
    monkeypatch.setattr("flame_core.tracking.promotion.promote", lambda *given: Promotion(None, "2", None))
    done = CliRunner().invoke(app, ["promote", "--version", "2"])
    assert done.exit_code == 0 and "flame version 2 is the champion already" in " ".join(done.output.split())
