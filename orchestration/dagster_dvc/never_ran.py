"""Keeps assets and checks whose steps never ran from being shown as failed.

Dagster plans every asset and check of a run when the run starts. If the run fails, its pages show everything that was
planned and did not come about as failed, including what never ran because something before it failed. So when a step
is about to fail, the plans that depend on it are replaced by plans of no run: an asset downstream shows its last
materialization, or that it has none, and a check counts as skipped. The same is done for a run that was killed.
"""

from __future__ import annotations

from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent, DagsterEventType
from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID


def withdraw_plans(context: dg.AssetExecutionContext, key: dg.AssetKey, *, own_checks: bool) -> None:
    """Withdraw this run's plans of everything downstream of an asset whose step is about to fail.

    Args:
        context: of the step.
        key: the asset.
        own_checks: whether the asset's own checks will not be evaluated either.
    """
    layer = context.job_def.asset_layer
    graph = layer.asset_graph
    downstream = dg.AssetSelection.assets(key).downstream(include_self=False).resolve(graph)
    never = sorted(downstream & layer.selected_asset_keys)
    for asset in never:
        planned = AssetMaterializationPlannedData(asset)
        _report(context.instance, DagsterEventType.ASSET_MATERIALIZATION_PLANNED, planned)
    for asset in (key, *never) if own_checks else never:
        for check in sorted(graph.get(asset).check_keys):
            _report(
                context.instance,
                DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
                AssetCheckEvaluationPlanned(asset_key=check.asset_key, check_name=check.name),
            )


def withdraw_unstarted(instance: dg.DagsterInstance, run_id: str) -> None:
    """Withdraw the plans of a run that was killed, except of the steps that it had started."""
    started = {entry.step_key for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_START)}
    for kind in (DagsterEventType.ASSET_MATERIALIZATION_PLANNED, DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED):
        for entry in instance.all_logs(run_id, of_type=kind):
            if entry.dagster_event and entry.step_key not in started:
                _report(instance, kind, entry.dagster_event.event_specific_data)


def _report(instance: dg.DagsterInstance, kind: DagsterEventType, planned: Any) -> None:
    event = DagsterEvent(event_type_value=kind.value, job_name=RUNLESS_JOB_NAME, event_specific_data=planned)
    instance.report_dagster_event(event, run_id=RUNLESS_RUN_ID)
