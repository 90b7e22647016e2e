"""What `flame status` says of each stage."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flame_core import cli
from flame_core.layout import Layout
from flame_core.planning.status import (
    NOT_PULLED,
    UP_TO_DATE,
    WOULD_FOLLOW,
    WOULD_RUN,
    StageStatus,
    combined,
    pipeline_status,
)
from flame_core.workspace import environment

ROOT = Path(__file__).parents[2]
UPSTREAM = {"ingest": (), "embed": ("ingest",), "train@a": ("ingest", "embed"), "llm": (), "compare": ("train@a",)}


def test_stages_behind_a_changed_one_would_follow():
    found = combined(
        UPSTREAM, {"embed": ["params.yaml: text.layer 3 → 4"]}, {"embed": "9 tokens", "train@a": "3 steps"}
    )
    assert found == [
        StageStatus("ingest", UP_TO_DATE),
        StageStatus("embed", WOULD_RUN, ("params.yaml: text.layer 3 → 4",), "9 tokens"),
        StageStatus("train@a", WOULD_FOLLOW, ("if what embed makes changes",), "3 steps"),
        StageStatus("llm", UP_TO_DATE),
        StageStatus("compare", WOULD_FOLLOW, ("if what train@a makes changes",), ""),
    ]


def test_what_only_has_to_be_pulled_would_not_run():
    changes = {"ingest": ["data/shards deleted"], "embed": ["data/shards deleted"]}
    found = combined(UPSTREAM, changes, {}, {"ingest": ["dvc pull data/shards"]})
    assert found[0] == StageStatus("ingest", NOT_PULLED, ("`dvc pull data/shards` brings it, if it was pushed",))
    assert found[1].state == WOULD_RUN


def test_nothing_changed_is_all_up_to_date():
    assert {each.state for each in combined(UPSTREAM, {}, {})} == {UP_TO_DATE}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(ROOT / "versions.yaml", tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_fresh_project_would_run_everything(project):
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=project, check=True)
    done = CliRunner().invoke(cli.app, ["status"], env={"COLUMNS": "80"})
    assert done.exit_code == 1
    for stage in ("download", "embed", "train@flame", "compare"):
        assert stage in done.stdout
    assert done.stdout.count("has not run here") == 9
    assert UP_TO_DATE not in done.stdout


def test_what_reads_an_out_that_is_only_absent_would_follow(project):
    """Also what reads a part of it."""
    (project / "dvc.yaml").write_text(
        """stages:
  make: {cmd: mkdir -p data/made && echo 1 > data/made/part, outs: [data/made]}
  read: {cmd: cp data/made/part data/read, deps: [data/made/part], outs: [{data/read: {cache: false}}]}
"""
    )
    for command in (["init", "--no-scm"], ["remote", "add", "--default", "there", "../remote"], ["repro"]):
        subprocess.run([sys.executable, "-m", "dvc", *command, "--quiet"], cwd=project, check=True)
    for folder in ("data/made", ".dvc/cache"):
        shutil.rmtree(project / folder)
    found = {each.stage: each.state for each in pipeline_status(Layout.find(project))}
    assert found == {"make": NOT_PULLED, "read": WOULD_FOLLOW}
