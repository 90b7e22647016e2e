"""The sensor that shows runs from a shell."""

from __future__ import annotations

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventType

from flame_core.dvc_project.project import DvcProject, Stage
from orchestration.dagster_dvc.assets import dvc_assets
from orchestration.dagster_dvc.lock_sensor import dvc_lock_sensor
from tests.foreign_project import dvc, edit
from tests.orchestration.conftest import KEYS, read_checks, stale


def test_a_run_from_the_shell_shows_up_once(reproduced: DvcProject, instance: dg.DagsterInstance) -> None:
    sensor = dvc_lock_sensor(reproduced, read_checks=read_checks)

    def tick() -> list:
        data = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
        for event in data.asset_events:
            instance.report_runless_asset_event(event)
        return list(data.asset_events)

    reported = tick()
    assert [e.asset_key for e in reported if isinstance(e, dg.AssetMaterialization)] == KEYS
    assert [e.check_name for e in reported if isinstance(e, dg.AssetCheckEvaluation)] == ["enough"]
    assert stale(reproduced, instance) == dict.fromkeys(KEYS, "FRESH")
    assert tick() == []
    data = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
    assert data.skip_message == "Dagster knows all 4 stages of dvc.lock: none has run outside it since."

    edit(reproduced.root / "params.yaml", "count: 4", "count: 5")
    assert stale(reproduced, instance)[KEYS[0]] == "STALE"  # another code version
    dvc(reproduced.root, "repro", "--quiet", "grow")
    assert [event.asset_key for event in tick() if isinstance(event, dg.AssetMaterialization)] == KEYS[:1]
    assert stale(reproduced, instance) == {
        KEYS[0]: "FRESH",
        KEYS[1]: "STALE",  # read another version of it
        KEYS[2]: "STALE",
        KEYS[3]: "FRESH",
    }


def test_it_says_why_it_reports_nothing(foreign: DvcProject, instance: dg.DagsterInstance) -> None:
    def said(project: DvcProject) -> str | None:
        sensor = dvc_lock_sensor(project, read_checks=read_checks)
        return sensor.evaluate_tick(dg.build_sensor_context(instance=instance)).skip_message

    (foreign.root / "dvc.lock").unlink(missing_ok=True)
    assert said(foreign) == "There is no dvc.lock: no stage has run yet."


def test_a_merge_s_conflict_is_said(reproduced: DvcProject, instance: dg.DagsterInstance) -> None:
    sensor = dvc_lock_sensor(reproduced, read_checks=read_checks)
    edit(reproduced.root / "dvc.lock", "schema:", "<<<<<<< HEAD\nschema:")
    data = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
    assert data.skip_message and "dvc.lock, line 1: a merge left a conflict here" in data.skip_message


def test_a_stage_that_cannot_be_reported_does_not_silence_the_others(
    reproduced: DvcProject, instance: dg.DagsterInstance
) -> None:
    def refuse(project: DvcProject, stage: Stage, declared: object) -> list[dg.AssetCheckResult]:
        raise dg.Failure(f"{stage.name} failed blocking checks that dvc.yaml does not list: large")

    sensor = dvc_lock_sensor(reproduced, read_checks=refuse)
    data = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
    assert [event.asset_key for event in data.asset_events] == KEYS[1:]
    for event in data.asset_events:
        instance.report_runless_asset_event(event)
    data = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
    assert data.skip_message == "Not shown: grow failed blocking checks that dvc.yaml does not list: large"


def test_only_what_a_run_in_progress_will_report_waits_for_it(
    reproduced: DvcProject, instance: dg.DagsterInstance
) -> None:
    sensor = dvc_lock_sensor(reproduced)
    assets = dvc_assets(reproduced, read_checks=read_checks)
    made = dg.Definitions(assets=assets).resolve_implicit_global_asset_job_def()

    @dg.job
    def experiment() -> None:  # a job without assets
        pass

    def tick() -> list[dg.AssetKey] | str | None:
        data = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
        return [event.asset_key for event in data.asset_events] or data.skip_message

    def begin(job: dg.JobDefinition, **selected: set) -> dg.DagsterRun:
        run = instance.create_run_for_job(job, **selected)
        instance.report_dagster_event(
            DagsterEvent(DagsterEventType.PIPELINE_START.value, job.name), run_id=run.run_id
        )  # fmt: skip
        return run

    begin(experiment)
    assert tick() == KEYS
    begin(made, asset_selection={KEYS[1]})
    assert tick() == [KEYS[0], *KEYS[2:]]
    begin(made)
    assert tick() == "A run in progress reports its 4 stages itself; Dagster knows all others of dvc.lock."
