"""What `flame run` and `flame status` do when something on this machine has changed that a stage read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flame_core.commands import recorded_stage
from flame_core.commands.run_stage import run_stage
from flame_core.data.shards import read_index
from flame_core.graph import links
from flame_core.layout import Layout
from flame_core.params import merge, read_yaml
from flame_core.settings import settings
from flame_core.stages import embed_texts, train
from flame_core.workspace import environment
from tests.outside.projects import (
    add,
    of_a_teacher,
    set_up_dvc,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("rank", "told"), [(0, ["train@student"]), (1, [])])
def test_of_several_nodes_only_the_first_records_a_training(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, rank: int, told: list[str]
):
    set_up_dvc(layout)
    of_a_teacher(layout).write_bytes(b"weights")
    recorded: list[str] = []
    monkeypatch.chdir(layout.root)
    monkeypatch.setattr(links, "require_links", lambda *_: None)
    monkeypatch.setattr(train, "run", lambda *_, recipe: None)
    monkeypatch.setattr(recorded_stage, "record_stage", lambda _, stage: recorded.append(stage))
    for name, value in {"TRAIN_NODES": 2, "NODE_RANK": rank, "RENDEZVOUS": "localhost:1"}.items():
        monkeypatch.setenv(f"FLAME_{name}", str(value))
    settings.cache_clear()
    try:
        run_stage("train", recipe="student")
    finally:
        settings.cache_clear()
    assert recorded == told and (layout.state / "sources").exists() == bool(told)


def test_texts_of_new_benchmarks_are_recorded(layout: Layout, monkeypatch: pytest.MonkeyPatch):
    """Else `flame run` would check out the store without them."""
    set_up_dvc(layout)
    recorded: list[str] = []
    monkeypatch.chdir(layout.root)
    monkeypatch.setattr(embed_texts, "run", lambda *_: None)
    monkeypatch.setattr(recorded_stage, "record_stage", lambda _, stage: recorded.append(stage))
    run_stage("embed_texts")
    assert recorded == ["embed"]


def flame(layout: Layout, *arguments: str, code: int = 0) -> str:
    own = {**os.environ, **environment(), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "flame_core", *arguments], cwd=layout.root, env=own, capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def keys(layout: Layout) -> list[str]:
    return sorted(row.key for split in ("train", "val") for row in read_index(layout.shards, split))


def test_a_run_reads_what_has_changed_and_old_params_bring_no_old_pictures_back(layout: Layout, tmp_path: Path):
    set_up_dvc(layout)
    pictures = tmp_path / "pictures"
    flame(layout, "run", "ingest")
    assert len(keys(layout)) == 10
    add(pictures, 10, 11)
    (pictures / "3.png").unlink()
    (pictures / "3.txt").unlink()
    assert "mine changed since it was read" in flame(layout, "status", code=1)
    said = flame(layout, "run", "ingest")
    assert "download looks again at mine" in said and len(keys(layout)) == 11
    assert "looks again" not in flame(layout, "run", "ingest")
    add(tmp_path / "more", 20)
    params = read_yaml(layout.params)
    both = merge(params, {"sources": {"more": {"kind": "folder", "path": "../more"}}})
    layout.params.write_text(yaml.safe_dump(both))
    add(pictures, 12)
    flame(layout, "run", "ingest")
    assert len(keys(layout)) == 13
    layout.params.write_text(yaml.safe_dump(params))
    flame(layout, "run", "ingest")
    assert len(keys(layout)) == 12  # of the folder as it is, not as it was under these params
    said = flame(layout, "run", "ingest", "--set", "ingest.max_side=64")
    assert "looks again" not in said and "'download' didn't change" in said
    workspace = next((layout.state / "runs").iterdir())
    assert len(keys(Layout.find(workspace))) == 12
    (pictures / "12.png").unlink()
    flame(layout, "download")  # by hand, as messages advise
    assert "looks again" not in flame(layout, "run", "ingest")
    assert len(keys(layout)) == 11
