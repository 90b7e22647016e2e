"""The whole graph on a few dozen real pictures through Dagster, in this process: the same bytes as `dvc repro`."""

from __future__ import annotations

import shutil
import subprocess
import sys

import dagster as dg
import pytest

from flame_core.layout import Layout
from flame_core.workspace import environment
from orchestration.materialize import materialize
from tests.integration.conftest import Project

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def twin(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same project, brought up to date from a shell."""
    twin = Project(tmp_path_factory.mktemp("twin") / "project")
    shutil.copytree(project.root, twin.root)
    twin.flame("run")
    return twin


@pytest.fixture(scope="module")
def materialized(project: Project) -> Layout:
    """The project after everything was materialized."""
    layout = Layout.find(project.root)
    assert materialize(layout)
    return layout


def shown(layout: Layout, *key: str) -> dict:
    """Metadata of an asset's latest materialization."""
    with dg.DagsterInstance.local_temp(str(layout.state / "dagster-inline")) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(key))
    assert event is not None and event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def test_the_same_lock_file_and_the_same_outs(project: Project, twin: Project, materialized: Layout) -> None:
    assert (project.root / "dvc.lock").read_bytes() == (twin.root / "dvc.lock").read_bytes()
    assert project.outs() == twin.outs()


def test_pictures_tables_and_numbers_are_shown(materialized: Layout) -> None:
    shards = shown(materialized, "ingest")
    assert shards["outcome"] == "computed"
    assert shards["train pictures"].startswith("![train pictures](data:image/jpeg;base64,")
    samples = shown(materialized, "caption")["sample captions"].records
    assert samples and set(samples[0].data) == {"sample", "raw", "short", "long"}
    assert shown(materialized, "train", "flame")["loss"].startswith("![loss](data:image/svg+xml;base64,")
    evaluation = shown(materialized, "evaluate", "flame")
    assert 0 <= evaluation["retrieval/en/image_to_text/recall@10"] <= 1
    assert evaluation["recall_image_to_text"].startswith("![")


def test_every_check_that_a_stage_writes_is_listed_in_dvc_yaml(project: Project, materialized: Layout) -> None:
    from flame_core import gates
    from orchestration.dvc_assets import stage_meta
    from orchestration.dvc_project import DvcProject

    for stage in DvcProject(project.root).stages().values():
        listed = set(stage_meta(stage).checks)
        for out in stage.outs:
            if (project.root / out / gates.CHECKS).exists():
                names = [check.name for check in gates.read(project.root / out)]
                assert [name for name in names if not listed.intersection(name.split("/"))] == []
                assert {part for name in names for part in name.split("/")} >= listed


def test_again_nothing_is_computed_and_the_pictures_stay(materialized: Layout) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.materialize"],
        cwd=materialized.root,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Running stage" not in done.stdout
    assert done.stderr.count("unchanged") == 8
    assert shown(materialized, "ingest")["train pictures"].startswith("![")


def test_a_broken_input_fails_its_stage_with_the_stage_s_own_words(
    materialized: Layout, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.change({"ingest": {"gates": {"min_train_samples": 5000}}})
    assert not materialize(materialized, select='key:"ingest" or key:"caption"')
    said = capsys.readouterr().err
    assert "check failed: ingest: train_samples" in said
    project.change({"ingest": {"gates": {"min_train_samples": 2}}})
