"""What starts runs: jobs, schedules (off until someone turns them on), and a sensor that watches local sources."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence

import dagster as dg

from flame_core.digest import value_digest
from flame_core.errors import FlameError
from flame_core.layout import Layout
from flame_core.outside.inputs import local_files
from flame_core.params import load_params
from flame_core.settings import settings
from orchestration.dagster_dvc.assets import REFRESH_TAG

LOOK_AGAIN = {REFRESH_TAG: "download"}  # reads the sources again; unchanged bytes cause no further work


def jobs(training: dg.AssetSelection) -> list[dg.UnresolvedAssetJobDefinition]:
    """`pretrain` (everything), and `retrain` (the selected assets and everything downstream)."""
    return [
        dg.define_asset_job(
            "pretrain", dg.AssetSelection.all(), description="Everything, from the sources to the comparison."
        ),
        dg.define_asset_job(
            "retrain", training.downstream(), description="Train, evaluate and compare on the existing data."
        ),
    ]


def schedules() -> list[dg.ScheduleDefinition]:
    """A weekly run that looks for new data, and a nightly one that trains if something changed."""
    zone = settings().timezone
    return [
        dg.ScheduleDefinition(
            name="weekly_pretrain",
            job_name="pretrain",
            cron_schedule="0 1 * * 6",
            execution_timezone=zone,
            tags=LOOK_AGAIN,
            description="Saturdays at 1: look at the sources again and bring everything up to date.",
        ),
        dg.ScheduleDefinition(
            name="nightly_retrain",
            job_name="retrain",
            cron_schedule="0 3 * * *",
            execution_timezone=zone,
            description="Every night at 3: train and evaluate again if a recipe or the data changed.",
        ),
    ]


def source_sensor(layout: Layout) -> dg.SensorDefinition:
    """Requests one run of `pretrain` per change of a local source (a folder or shards).

    A change counts only after two evaluations see the same state, so partly copied data start nothing. The state when
    the sensor is turned on is not a change, and neither is a source that is not there, such as on a disk that is not
    mounted: a run would fail, and leave `data/raw` to be made again.
    """

    @dg.sensor(
        name="new_data",
        job_name="pretrain",
        minimum_interval_seconds=60,
        description="Notices new, changed or removed files of local sources and requests a run that downloads again.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            files = local_files(load_params(layout).sources, layout)
        except FlameError as error:
            return dg.SkipReason(f"params.yaml cannot be used: {error}")
        if gone := [name for name, found in files.items() if not found]:
            return dg.SkipReason(f"{', '.join(gone)}: no files there now, so a run would fail. Is the disk mounted?")
        now = value_digest(files)[:16]
        cursor = _cursor(context.cursor)
        seen, pending = cursor or (now, now)
        settled = now == pending and now != seen
        saved = json.dumps({"seen": now if settled else seen, "pending": now})
        if not settled:
            why = _why_not(files, first=cursor is None, changing=now != seen)
            return dg.SensorResult(skip_reason=dg.SkipReason(why), cursor=saved)
        # Dagster uses a run key only once, but the sources may return to an earlier state.
        request = dg.RunRequest(run_key=f"{time.time_ns()}-{now}", tags=LOOK_AGAIN)
        return dg.SensorResult(run_requests=[request], cursor=saved)

    return sensor


def _cursor(text: str | None) -> tuple[str, str] | None:
    """The states that were last acted upon and last seen; None if there is no cursor that says so."""
    try:
        saved = json.loads(text or "null")
        return str(saved["seen"]), str(saved["pending"])
    except (ValueError, TypeError, KeyError):
        return None


def _why_not(files: Mapping[str, Sequence[object]], *, first: bool, changing: bool) -> str:
    """Why no run is requested."""
    if not files:
        return "No source in params.yaml is a folder or shards on this machine, so there is nothing to watch."
    watched = ", ".join(f"{name}: {len(found)} files" for name, found in files.items())
    if first:
        return f"This is the state from which changes count ({watched})."
    if changing:
        return f"The sources have changed ({watched}); a run starts once two looks in a row see the same."
    return f"The sources have not changed ({watched})."
