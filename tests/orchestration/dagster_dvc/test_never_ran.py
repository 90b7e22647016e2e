"""What a run planned and never began is not shown as failed: assets keep their state, checks are skipped."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any, NoReturn

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.loader import LoadingContextForTest

from flame_core.dvc_project.project import DvcProject
from orchestration.dagster_dvc.assets import dvc_assets
from orchestration.instance import PROCESS_TAG, end_dead_runs
from tests.foreign_project import edit
from tests.orchestration.conftest import KEYS, read_checks

CHECKED_TOTAL = """\
    outs: [total.txt]
    meta: {dagster: {checks: [enough]}}
"""


@pytest.fixture
def stored(tmp_path: Path):
    """An instance with SQLite files, as of `make ui`."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def run(project: DvcProject, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return dg.materialize(dvc_assets(project, read_checks=read_checks), instance=instance, raise_on_error=False)


def shown_as_failed(instance: dg.DagsterInstance) -> list[dg.AssetKey]:
    """The assets that Dagster's pages show as failed: their last plan is of a failed run that did not make them."""
    found = []
    for key in KEYS:
        planned = instance.get_latest_planned_materialization_info(key)
        planned_by = instance.get_run_by_id(planned.run_id) if planned and planned.run_id else None
        made = instance.get_latest_materialization_event(key)
        if planned_by and planned_by.is_failure and (made is None or made.run_id != planned_by.run_id):
            found.append(key)
    return found


def check_status(instance: dg.DagsterInstance, key: dg.AssetKey) -> str:
    (record,) = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(key, "enough"), limit=1)
    return asyncio.run(record.resolve_status(LoadingContextForTest(instance))).value


def test_after_a_failed_stage_only_that_stage_is_red(foreign: DvcProject, stored: dg.DagsterInstance) -> None:
    edit(foreign.root / "dvc.yaml", "    outs: [total.txt]\n", CHECKED_TOTAL)
    edit(foreign.root / "params.yaml", "count: 4", "count: -1")
    assert not run(foreign, stored).success
    assert shown_as_failed(stored) == [KEYS[0]]
    assert [check_status(stored, key) for key in (KEYS[0], KEYS[3])] == ["SKIPPED", "SKIPPED"]
    assert not run(foreign, stored).success  # a second time
    assert shown_as_failed(stored) == [KEYS[0]]

    edit(foreign.root / "params.yaml", "count: -1", "count: 4")
    assert run(foreign, stored).success
    assert shown_as_failed(stored) == []
    assert [check_status(stored, key) for key in (KEYS[0], KEYS[3])] == ["SUCCEEDED", "SUCCEEDED"]


@pytest.mark.parametrize("reader", ["require", "read_tags"])
def test_what_refuses_a_stage_before_it_starts_makes_only_that_stage_red(
    foreign: DvcProject, stored: dg.DagsterInstance, reader: str
) -> None:
    def refuse(project: DvcProject) -> NoReturn:
        raise dg.Failure("params.yaml is broken")

    asked: Any = {reader: refuse}
    asked = dvc_assets(foreign, read_checks=read_checks, **asked)
    assert not dg.materialize(asked, instance=stored, raise_on_error=False).success
    assert shown_as_failed(stored) == [KEYS[0]]


def test_after_a_failed_check_it_is_the_check_that_is_red(foreign: DvcProject, stored: dg.DagsterInstance) -> None:
    edit(foreign.root / "params.yaml", "count: 4", "count: 2")
    assert not run(foreign, stored).success
    assert shown_as_failed(stored) == []
    assert check_status(stored, KEYS[0]) == "FAILED"


def test_a_stage_that_is_tried_again_withdraws_nothing(foreign: DvcProject, stored: dg.DagsterInstance) -> None:
    edit(
        foreign.root / "grow.py",
        "count =",
        "f = pathlib.Path('tried'); t = f.exists(); f.touch(); t or sys.exit(5)\ncount =",
    )
    done = run(foreign, stored)
    assert done.success
    planned = [stored.get_latest_planned_materialization_info(key) for key in KEYS]
    assert [each.run_id for each in planned if each] == [done.run_id] * len(KEYS)


def test_of_a_killed_run_only_what_it_had_begun_is_red(stored: dg.DagsterInstance) -> None:
    @dg.asset
    def begun() -> None: ...

    @dg.asset(deps=[begun], check_specs=[dg.AssetCheckSpec("enough", asset="later")])
    def later() -> dg.MaterializeResult: ...

    job = dg.Definitions(assets=[begun, later]).resolve_implicit_global_asset_job_def()
    killed = {PROCESS_TAG: f"{socket.gethostname()}:999999999:1.00"}
    run = stored.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=killed)
    event = DagsterEvent(DagsterEventType.STEP_START.value, job_name=job.name, step_key="begun")
    stored.report_dagster_event(event, run_id=run.run_id)
    end_dead_runs(stored)
    assert stored.get_run_by_id(run.run_id).is_failure
    planned = {name: stored.get_latest_planned_materialization_info(dg.AssetKey(name)) for name in ("begun", "later")}
    assert {name: plan.run_id for name, plan in planned.items() if plan} == {"begun": run.run_id, "later": ""}
    assert check_status(stored, dg.AssetKey("later")) == "SKIPPED"
