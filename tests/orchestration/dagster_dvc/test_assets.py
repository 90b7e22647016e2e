"""Assets of a foreign DVC project: how they look, and what a materialization does."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import dagster as dg
import pytest

from flame_core.dvc_project.project import DvcProject
from orchestration.dagster_dvc import run
from orchestration.dagster_dvc.assets import asset_key, dvc_assets, op_name
from orchestration.dagster_dvc.lock_sensor import dvc_lock_sensor
from tests.foreign_project import edit
from tests.orchestration.conftest import KEYS, assets, read_checks, stale


def materialize(project: DvcProject, instance: dg.DagsterInstance, **options) -> dg.ExecuteInProcessResult:
    return dg.materialize(assets(project), instance=instance, raise_on_error=False, **options)


def outcomes(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    return {
        event.asset_key.to_user_string(): event.materialization.metadata["outcome"].text
        for event in result.get_asset_materialization_events()
    }


def failure(result: dg.ExecuteInProcessResult, step: str) -> str:
    error = result.failure_data_for_node(step)
    assert error is not None
    data = error.user_failure_data
    return f"{data.description if data else ''}\n{error.error.to_string() if error.error else ''}"


def test_specs_follow_the_file(foreign: DvcProject) -> None:
    graph = dg.Definitions(assets=assets(foreign)).resolve_asset_graph()
    assert sorted(graph.get_all_asset_keys()) == KEYS
    grow = graph.get(KEYS[0])
    assert grow.description is not None and grow.description.startswith("Grow some numbers.")
    assert (grow.group_name, grow.kinds, list(grow.owners)) == ("data", {"dvc", "python"}, ["someone@example.org"])
    assert grow.pools == {"field"}
    assert {key.name for key in grow.check_keys} == {"enough"}
    (check,) = (graph.get(key) for key in grow.check_keys)
    assert check.description is not None and "a warning stops nothing" in check.description  # Dagster: "is blocking"
    total = graph.get(KEYS[3])
    assert (total.group_name, total.kinds, total.parent_keys) == ("default", {"dvc"}, {KEYS[1], KEYS[2]})


def test_names_that_dagster_refuses_are_spelled_otherwise() -> None:
    assert asset_key("train@0.1-big") == dg.AssetKey(["train.0.1-big"])
    assert op_name("train@0.1-big") == "train__0_1_big"


@pytest.mark.parametrize("damage", [b"", b'{"a', b"\xff"])
def test_a_damaged_memory_of_reports_does_not_fail_a_stage_that_is_up_to_date(
    foreign: DvcProject, instance: dg.DagsterInstance, damage: bytes
) -> None:
    assert materialize(foreign, instance).success
    kept = list((foreign.root / ".dvc/tmp/dagster").rglob("*.json"))
    assert kept
    for path in kept:
        path.write_bytes(damage)
    again = materialize(foreign, instance)
    assert again.success and set(outcomes(again).values()) == {"unchanged"}


def test_a_project_below_dvc_s_folder_gets_none_of_its_own(foreign: DvcProject, instance: dg.DagsterInstance) -> None:
    """DVC takes the nearest `.dvc`: an empty one would hide the cache and the remotes of the other."""
    inner = DvcProject(foreign.root / "inner")
    inner.root.mkdir()
    for name in ("dvc.yaml", "params.yaml", "grow.py"):
        (foreign.root / name).rename(inner.root / name)
    assert materialize(inner, instance).success
    assert not (inner.root / ".dvc").exists()
    assert list((foreign.root / ".dvc/tmp/dagster/grow").glob("*.json"))
    assert set(outcomes(materialize(inner, instance)).values()) == {"unchanged"}
    event = instance.get_latest_materialization_event(KEYS[0])
    assert event is not None and event.asset_materialization is not None
    assert event.asset_materialization.metadata["grown"].value == 4


def test_materialize_then_unchanged(
    foreign: DvcProject, reproduced_template: Path, instance: dg.DagsterInstance
) -> None:
    assert set(stale(foreign, instance).values()) == {"MISSING"}
    result = materialize(foreign, instance)
    assert result.success
    assert set(outcomes(result).values()) == {"computed"}
    # as `dvc repro` from a shell leaves it
    assert (foreign.root / "dvc.lock").read_bytes() == (reproduced_template / "dvc.lock").read_bytes()
    assert (foreign.root / "total.txt").read_text() == "72\n"
    event = instance.get_latest_materialization_event(KEYS[0])
    assert event is not None and event.asset_materialization is not None
    assert event.asset_materialization.metadata["grown"].value == 4  # reported by the stage's process
    assert event.asset_materialization.tags["params"] == "p1"
    assert result.dagster_run.run_id in {run.run_id for run in instance.get_runs(dg.RunsFilter(tags={"params": "p1"}))}
    locked = foreign.locked()
    for stage, entry in locked.items():
        record = instance.get_latest_data_version_record(asset_key(stage))
        assert record.event_log_entry.tags["dagster/data_version"] == entry.data_version

    assert stale(foreign, instance) == dict.fromkeys(KEYS, "FRESH")
    tick = dvc_lock_sensor(foreign, read_checks=read_checks).evaluate_tick(dg.build_sensor_context(instance=instance))
    assert not tick.asset_events  # what Dagster ran is not reported again

    again = materialize(foreign, instance)
    assert again.success
    assert set(outcomes(again).values()) == {"unchanged"}
    event = instance.get_latest_materialization_event(KEYS[0])
    assert event.asset_materialization.metadata["grown"].value == 4  # a cached stage keeps what it showed


def test_a_dirty_ancestor_is_refused_by_name(reproduced: DvcProject, instance: dg.DagsterInstance) -> None:
    edit(reproduced.root / "params.yaml", "count: 4", "count: 5")
    before = (reproduced.root / "dvc.lock").read_bytes()
    result = materialize(reproduced, instance, selection="total")
    assert not result.success
    assert "grow (params.yaml: count 4 → 5)" in failure(result, "total")
    assert (reproduced.root / "dvc.lock").read_bytes() == before


def test_a_failing_stage_shows_its_last_lines(foreign: DvcProject, instance: dg.DagsterInstance) -> None:
    edit(foreign.root / "params.yaml", "count: 4", "count: -1")
    result = materialize(foreign, instance)
    assert not result.success
    said = failure(result, "grow")
    assert "grow failed with exit code 1" in said
    assert "number-7 is negative; give count a value above 0" in said
    assert outcomes(result) == {}
    assert len(result.get_step_failure_events()) == 1  # exit code 1 is not listed as transient: no retry
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_a_transient_exit_code_is_retried(foreign: DvcProject, instance: dg.DagsterInstance) -> None:
    edit(
        foreign.root / "grow.py",
        "count =",
        "f = pathlib.Path('tried'); t = f.exists(); f.touch(); t or sys.exit(5)\ncount =",
    )
    result = materialize(foreign, instance, selection="grow")
    assert result.success
    assert len([event for event in result.all_events if event.is_step_up_for_retry]) == 1


def test_a_failed_check_stops_the_run(foreign: DvcProject, instance: dg.DagsterInstance) -> None:
    edit(foreign.root / "params.yaml", "count: 4", "count: 2")
    result = materialize(foreign, instance)
    assert not result.success
    assert outcomes(result) == {"grow": "computed"}
    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.check_name, evaluation.passed) == ("enough", False)


def test_refresh_forces_one_stage_and_equal_bytes_stop_there(
    reproduced: DvcProject, instance: dg.DagsterInstance
) -> None:
    result = materialize(reproduced, instance, tags={"refresh": "grow"})
    assert result.success
    assert outcomes(result) == {
        "grow": "computed",
        "scale.10": "unchanged",
        "scale.2": "unchanged",
        "total": "unchanged",
    }


def test_a_run_has_the_tags_of_its_first_stage(reproduced: DvcProject, instance: dg.DagsterInstance) -> None:
    """A commit while it runs is that of the stages behind it: their materializations say so."""
    found = iter(["first", *["later"] * 3])
    asked = dvc_assets(reproduced, read_checks=read_checks, read_tags=lambda project: {"git_commit": next(found)})
    result = dg.materialize(asked, instance=instance)
    run = instance.get_run_by_id(result.run_id)
    assert run is not None and run.tags["git_commit"] == "first"
    made = [event.materialization.tags["git_commit"] for event in result.get_asset_materialization_events()]
    assert made == ["first", *["later"] * 3]


def test_a_path_in_use_is_waited_for_and_its_user_named(
    foreign: DvcProject, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(foreign.root / "grow.py", "count =", "time.sleep(4)\ncount =")
    other = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--single-item", "grow"],
        cwd=foreign.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None and "Running stage" in other.stdout.readline()
    result = materialize(foreign, instance, selection="grow")
    _, errors = other.communicate()
    assert result.success
    if "Unable to acquire lock" in errors:
        pytest.skip("on this busy machine, DVC gave up on its own lock")
    assert outcomes(result) == {"grow": "unchanged"}  # the other one had done it
    assert f"(PID {other.pid}): " in capfd.readouterr().err


def test_a_stage_does_not_outlive_its_run(
    foreign: DvcProject, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the interface, where a run's steps are processes of their own: they are left if the run's is killed."""
    monkeypatch.setattr(run, "_LOOK_SECONDS", 0.1)
    edit(foreign.root / "grow.py", "count =", "pathlib.Path('started').touch(); time.sleep(60)\ncount =")

    def end(instance: dg.DagsterInstance) -> None:
        while not (foreign.root / "started").exists():
            time.sleep(0.05)
        instance.report_run_failed(instance.get_runs()[0], "its process was killed")

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        ending = threading.Thread(target=end, args=(instance,))
        ending.start()
        result = materialize(foreign, instance, selection="grow")
        ending.join()
        assert "The run has ended (FAILURE), so its stage is stopped." in failure(result, "grow")
    assert "asking process" in capfd.readouterr().err
