"""The sensor of local sources: one run for one change, once it has settled; and the tags of a run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import dagster as dg
import pytest
import yaml

from flame_core.dvc_project.project import DvcProject
from flame_core.layout import Layout
from flame_core.params import merge, read_yaml
from orchestration.automation import source_sensor
from orchestration.resources import read_tags

ROOT = Path(__file__).parents[2]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A project whose one source is the folder `pictures`."""
    content = merge(read_yaml(ROOT / "params.yaml"), {"recipes": ["flame"], "train": {"epochs": 40}})
    content["sources"] = {"mine": {"kind": "folder", "path": "pictures"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"one")
    return Layout.find(tmp_path)


class Ticks:
    """Evaluates a sensor as the daemon does, with its cursor."""

    def __init__(self, sensor: dg.SensorDefinition) -> None:
        self.sensor = sensor
        self.cursor: str | None = None
        self.said: str | None = None

    def tick(self) -> list[dg.RunRequest]:
        with dg.DagsterInstance.ephemeral() as instance:
            data = self.sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=self.cursor))
        self.cursor, self.said = data.cursor, data.skip_message
        return list(data.run_requests or ())


def test_one_change_makes_one_run_once_it_has_settled(layout: Layout) -> None:
    ticks = Ticks(source_sensor(layout))
    assert ticks.tick() == []  # what is there at first is no change
    assert ticks.said == "This is the state from which changes count (mine: 1 files)."
    assert ticks.tick() == []
    assert ticks.said == "The sources have not changed (mine: 1 files)."
    (layout.root / "pictures" / "b.jpg").write_bytes(b"two")
    assert ticks.tick() == []  # it may still be copied
    assert ticks.said and ticks.said.startswith("The sources have changed (mine: 2 files); a run starts once")
    (layout.root / "pictures" / "b.jpg").write_bytes(b"two and more")
    assert ticks.tick() == []
    (request,) = ticks.tick()
    assert request.tags["refresh"] == "download"
    assert request.run_key
    assert ticks.tick() == []


@pytest.mark.parametrize("cursor", ["x", "[]", "{}", "null", '{"seen": 1}'])
def test_a_damaged_cursor_begins_anew(layout: Layout, cursor: str) -> None:
    ticks = Ticks(source_sensor(layout))
    ticks.tick()
    ticks.cursor = cursor
    assert ticks.tick() == [] and ticks.said and ticks.said.startswith("This is the state from which")
    (layout.root / "pictures" / "b.jpg").write_bytes(b"two")
    assert ticks.tick() == [] and len(ticks.tick()) == 1


def test_without_local_sources_it_says_that_there_is_nothing_to_watch(layout: Layout) -> None:
    shutil.copy(ROOT / "params.yaml", layout.params)
    ticks = Ticks(source_sensor(layout))
    assert ticks.tick() == []
    assert ticks.said == (
        "No source in params.yaml is a folder or shards on this machine, so there is nothing to watch."
    )


def test_shards_in_a_bucket_are_not_watched(layout: Layout) -> None:
    content = read_yaml(layout.params) | {"sources": {"far": {"kind": "webdataset", "path": "s3://bucket/wds"}}}
    layout.params.write_text(yaml.safe_dump(content))
    ticks = Ticks(source_sensor(layout))
    assert ticks.tick() == [] and ticks.said and "nothing to watch" in ticks.said


def test_a_state_that_comes_back_is_a_change_again(layout: Layout) -> None:
    ticks = Ticks(source_sensor(layout))
    path = layout.root / "pictures" / "a.jpg"
    keys = [request.run_key for request in ticks.tick()]
    for content, time in [(b"two", 2), (b"one", 1), (b"two", 2)]:
        path.write_bytes(content)
        os.utime(path, ns=(time, time))
        keys += [request.run_key for _ in range(3) for request in ticks.tick()]
    assert len(keys) == len(set(keys)) == 3


@pytest.mark.parametrize("change", ["removed", "same size", "renamed"])
def test_every_kind_of_change_counts(layout: Layout, change: str) -> None:
    (layout.root / "pictures" / "b.jpg").write_bytes(b"two")
    ticks = Ticks(source_sensor(layout))
    ticks.tick()
    path = layout.root / "pictures" / "a.jpg"
    if change == "removed":
        path.unlink()
    elif change == "same size":
        path.write_bytes(b"two")
        os.utime(path, ns=(1, 1))
    else:
        path.rename(path.with_name("c.jpg"))
    ticks.tick()
    assert len(ticks.tick()) == 1


@pytest.mark.parametrize("empty", [False, True], ids=["its folder too", "a mount point stays"])
def test_a_source_that_is_away_for_a_while_starts_no_run(layout: Layout, empty: bool) -> None:
    ticks = Ticks(source_sensor(layout))
    ticks.tick()
    folder, away = layout.root / "pictures", layout.root / "away"
    folder.rename(away)
    if empty:
        folder.mkdir()
    for _ in range(3):
        assert ticks.tick() == []
        assert ticks.said == "mine: no files there now, so a run would fail. Is the disk mounted?"
    if empty:
        folder.rmdir()
    away.rename(folder)
    assert [ticks.tick() for _ in range(3)] == [[], [], []]
    (folder / "b.jpg").write_bytes(b"two")
    assert [len(ticks.tick()) for _ in range(3)] == [0, 1, 0]


def test_broken_params_skip_with_the_reason(layout: Layout) -> None:
    layout.params.write_text("sources: [")
    with dg.DagsterInstance.ephemeral() as instance:
        data = source_sensor(layout).evaluate_tick(dg.build_sensor_context(instance=instance))
    assert "params.yaml is not valid YAML" in str(data.skip_message)


def test_tags_carry_the_params_and_the_commit(layout: Layout) -> None:
    tags = read_tags(DvcProject(layout.root))
    assert set(tags) == {"params_digest"}  # no git here
    git = ["git", "-C", str(layout.root), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    (layout.root / "dvc.lock").write_text("before\n")
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (layout.root / "dvc.lock").write_text("as the first stage of a run leaves it\n")
    assert read_tags(DvcProject(layout.root))["git_commit"] == head[:12]
    layout.params.write_text(layout.params.read_text().replace("epochs: 40", "epochs: 41"))
    changed = read_tags(DvcProject(layout.root))
    assert changed["git_commit"] == f"{head[:12]}-dirty"
    assert changed["params_digest"] != tags["params_digest"]
