"""`python -m orchestration.materialize`: what it says on the way, when a stage fails, and of a wrong selection."""

from __future__ import annotations

import subprocess
import sys

import dagster as dg
import pytest

from flame_core.errors import ParamsError, ResourceError
from flame_core.layout import Layout
from flame_core.workspace import environment
from orchestration.materialize import _given, materialize
from tests.foreign_project import edit
from tests.orchestration.test_experiment import layout as layout  # the fixture: FLAME's params, two cheap stages
from tests.repro.test_run import fail_a_check


def in_shell(layout: Layout) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestration.materialize"],
        cwd=layout.root,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_failing_stage_shows_its_last_lines_and_the_command_fails(layout: Layout) -> None:
    edit(layout.root / "dvc.yaml", "echo done", "echo no room for key-9 && exit 3")
    done = in_shell(layout)
    assert done.returncode == 3
    said = done.stdout.splitlines()
    assert "Running stage 'train@flame':" in said
    assert any(line.split() == ["train.flame", "computed"] for line in said)
    assert said[-2:] == ["compare failed with exit code 3:", "no room for key-9"]
    assert "dvc push" not in done.stdout and "git add" not in done.stdout
    assert any(line.split("INFO")[-1].strip().startswith("compare: ") for line in said)  # why it runs, and no run id


def test_nothing_is_called_materialized_if_the_first_stage_fails(layout: Layout) -> None:
    edit(layout.root / "dvc.yaml", "mkdir -p data/models &&", "exit 3;")
    done = in_shell(layout)
    assert done.returncode == 3 and "train.flame failed with exit code 3" in done.stdout.replace("@", ".")
    assert "Materialized" not in done.stdout


def test_a_check_that_has_not_passed_is_told_with_its_remedy(layout: Layout) -> None:
    fail_a_check(layout)
    done = in_shell(layout)
    assert done.returncode == 0, done.stdout
    lines = [line.strip() for line in done.stdout.splitlines()]
    start = next(
        number for number, line in enumerate(lines) if line.startswith("check failed: compare: recipes_differ")
    )
    assert lines[start + 1] == "threshold: fixed, no param changes it"
    assert lines[-1] == "then go on with `flame run`"


@pytest.mark.parametrize("select", ["key:nothing", "compare or train"])
def test_a_selection_that_means_nothing_is_refused(layout: Layout, select: str) -> None:
    with pytest.raises(ParamsError, match=r"--select .*write key:ingest"):
        materialize(layout, select)


def test_only_a_selection_needs_dagster_s_parser(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """With antlr 4.9, which DVC's omegaconf asks for and pip therefore installs, it fails with a TypeError."""

    def with_another_antlr(string: str) -> dg.AssetSelection:
        return ord(3)  # type: ignore[arg-type, return-value]

    monkeypatch.setattr(dg.AssetSelection, "from_string", with_another_antlr)
    with pytest.raises(ResourceError, match=r"pip install 'antlr4-python3-runtime>=4\.13,<4\.14'"):
        materialize(layout, "key:ingest")
    assert materialize(layout) == 0


@pytest.mark.parametrize("override", ["train.epochs=[5", "train.epochs", "train.name=2026-01-02", "a..b=1"])
def test_an_override_that_cannot_be_read_is_one_sentence(layout: Layout, override: str) -> None:
    with pytest.raises(ParamsError, match="--set"):
        materialize(layout, overrides=[override])


def test_what_would_be_dropped_or_means_nothing_is_refused(layout: Layout) -> None:
    with pytest.raises(ParamsError, match="--select goes with neither --set nor --preset"):
        materialize(layout, "compare", ["train.epochs=2"])
    with pytest.raises(ParamsError, match="--refresh 'downlaod' is no stage; known stages: compare"):
        materialize(layout, refresh=["downlaod"])
    with pytest.raises(ParamsError, match="preset 'nosuch' does not exist"):
        materialize(layout, preset="nosuch")
    with pytest.raises(ParamsError, match=r"train\.epochs"):
        materialize(layout, overrides=["train.epochs=0"])


def test_what_flame_run_refuses_is_refused_before_anything_starts(layout: Layout) -> None:
    with pytest.raises(ParamsError, match=r"mine/gone\.yaml does not exist"):
        materialize(layout, overrides=["evaluate.benchmarks.names=[mine/gone.yaml]"])
    edit(layout.root / "versions.yaml", "ingest: ", "ingest: 9")
    with pytest.raises(ParamsError, match="ingest 9"):
        materialize(layout)
    assert not layout.state.exists()


def test_the_graph_is_resolved_once(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "orchestration.definitions", raising=False)
    assert materialize(layout) == 0
    assert "orchestration.definitions" not in sys.modules  # which Dagster loads, and which builds them itself


def test_a_key_that_is_given_twice_is_merged_as_by_flame_run() -> None:
    twice = ["train.optimizer={learning_rate: 0.01}", "a=1", "train.optimizer={weight_decay: 0.2}"]
    assert _given(twice) == {"train": {"optimizer": {"learning_rate": 0.01, "weight_decay": 0.2}}, "a": 1}
    assert _given(["train.epochs=2", "a=1"]) == {"train.epochs": 2, "a": 1}


def test_a_file_in_dagsters_place_is_named(layout: Layout) -> None:
    layout.state.mkdir(exist_ok=True)
    (layout.state / "dagster").write_text("")
    done = in_shell(layout)
    assert done.returncode == 5 and "is a file, where Dagster has a folder: move it away" in done.stdout
    assert "Traceback" not in done.stdout
