"""The whole graph on a few dozen real pictures through Dagster, terminated twice: the same bytes as `dvc repro`."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import psutil
import pytest

from flame_core.layout import Layout
from flame_core.measuring.results import read_results
from flame_core.workspace import environment
from orchestration.materialize import materialize
from tests.integration.conftest import PICTURES, Project

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def twin(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same project, brought up to date from a shell."""
    twin = Project(tmp_path_factory.mktemp("twin") / "project")
    shutil.copytree(project.root, twin.root)
    twin.flame("run")
    return twin


@dataclass(frozen=True)
class Stopped:
    """A run that was terminated while a stage was at work: how it ended, what it said, which processes it left."""

    code: int
    said: str
    left: list[str]


@pytest.fixture(scope="module")
def stopped(project: Project, twin: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stopped]:
    """Two runs of the untouched project, the first terminated during `embed`, the second during `train`."""
    folder = tmp_path_factory.mktemp("stopped")
    work = project.root / ".flame/work"
    return {
        "embed": stop(project, "embed", lambda: any(work.glob("embed/[!.]*")), folder / "embed.log"),
        "train": stop(project, "train", lambda: any(work.glob("train-checkpoints/*/[!.]*/*.pt")), folder / "log"),
    }


def stop(project: Project, stage: str, at_work: Callable[[], bool], output: Path) -> Stopped:
    """Terminate a run once its stage is `at_work`; the stage is held meanwhile, so it cannot end before it is asked."""
    with output.open("w") as file:
        run = subprocess.Popen(
            [sys.executable, "-m", "orchestration.materialize"],
            cwd=project.root,
            env={**environment(), "FLAME_CHECKPOINT_SECONDS": "0"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    while not at_work():
        assert run.poll() is None, output.read_text()
        time.sleep(0.02)
    flame = str(Path(sys.executable).with_name("flame"))
    (held,) = [process for process in processes_in(project.root) if process.cmdline()[1:3] == [flame, stage]]
    held.suspend()
    run.send_signal(signal.SIGTERM)
    while "asking process" not in output.read_text():
        assert run.poll() is None, output.read_text()
        time.sleep(0.05)
    held.resume()
    code = run.wait(timeout=120)
    return Stopped(code, output.read_text(), [" ".join(process.cmdline()) for process in processes_in(project.root)])


def processes_in(folder: Path) -> list[psutil.Process]:
    """All processes that work in a folder or below it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found


@pytest.fixture(scope="module")
def materialized(project: Project, stopped: dict[str, Stopped]) -> Layout:
    """The project after everything was materialized, on top of what the terminated runs had done."""
    layout = Layout.find(project.root)
    assert materialize(layout) == 0
    return layout


def shown(layout: Layout, *key: str) -> dict:
    """Metadata of an asset's latest materialization."""
    with dg.DagsterInstance.from_config(str(layout.state / "dagster")) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(key))
    assert event is not None and event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


@pytest.mark.parametrize("stage", ["embed", "train"])
def test_a_terminated_run_leaves_no_process(stopped: dict[str, Stopped], stage: str) -> None:
    assert stopped[stage].left == []
    assert stopped[stage].code == 75
    assert "the same command resumes" in stopped[stage].said


def test_what_was_done_before_a_stop_is_not_done_again(stopped: dict[str, Stopped]) -> None:
    (line,) = [line for line in stopped["train"].said.splitlines() if "files computed / found" in line]
    computed, found = map(int, line.rpartition("found")[2].split("/"))
    assert computed >= 1 and found >= 1
    assert "run again to resume" in stopped["train"].said  # it had a checkpoint


def test_the_same_lock_file_and_the_same_outs(project: Project, twin: Project, materialized: Layout) -> None:
    """As those of a run from a shell that nobody disturbed."""
    assert (project.root / "dvc.lock").read_bytes() == (twin.root / "dvc.lock").read_bytes()
    assert project.outs() == twin.outs()


def test_pictures_tables_and_numbers_are_shown(materialized: Layout) -> None:
    shards = shown(materialized, "ingest")
    assert shards["outcome"] == "unchanged"  # the first of the terminated runs had computed it
    assert shown(materialized, "train.flame")["outcome"] == "computed"
    assert shards["train pictures"].startswith("![train pictures](data:image/jpeg;base64,")
    assert shown(materialized, "download")["pairs"] == PICTURES
    neighbours = shown(materialized, "embed")["nearest captions by facet"].records
    assert {row.data["facet"] for row in neighbours} == {"raw/1", "short/1", "short/2", "short/3"}
    assert all(row.data["caption"] and row.data["nearest"] for row in neighbours)
    samples = shown(materialized, "caption")["sample captions"].records
    assert samples and set(samples[0].data) == {"sample", "raw", "short", "long"}
    assert shown(materialized, "train.flame")["loss"].startswith("![loss](data:image/svg+xml;base64,")
    assert len(shown(materialized, "train.flame")["loss"]) < 1000  # so Dagster shows it in place
    assert shown(materialized, "train.flame")["last loss"] < shown(materialized, "train.flame")["first loss"]
    evaluation = shown(materialized, "evaluate.flame")
    assert 0 <= evaluation["retrieval/en/image_to_text/recall@10"] <= 1
    assert evaluation["recall_image_to_text"].startswith("![")
    charts = [value for value in shown(materialized, "compare").values() if str(value).startswith("![")]
    assert len(charts) == len(read_results(materialized.report("flame")).headline)


def test_every_check_that_a_stage_writes_is_listed_in_dvc_yaml(project: Project, materialized: Layout) -> None:
    from flame_core import gates
    from flame_core.dvc_project.project import DvcProject
    from flame_core.params import load_params
    from orchestration.checks import applicable
    from orchestration.dagster_dvc.stage_meta import stage_meta

    for stage in applicable(DvcProject(project.root).stages(), load_params(materialized)).values():
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
    assert done.stderr.count(": unchanged") == 9  # as each is reached; the closing table says it again
    assert shown(materialized, "ingest")["train pictures"].startswith("![")


def test_a_broken_input_fails_its_stage_with_the_stage_s_own_words(
    materialized: Layout, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.change({"ingest": {"gates": {"min_train_samples": 5000}}})
    assert materialize(materialized, select='key:"ingest" or key:"caption"') == 1
    said = capsys.readouterr().err
    assert "check failed: ingest: train_samples" in said
    project.change({"ingest": {"gates": {"min_train_samples": 2}}})
