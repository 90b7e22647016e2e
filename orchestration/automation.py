"""What starts runs: jobs, schedules (off until someone turns them on), and a sensor that watches local sources."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import dagster as dg

from flame_core.data.buckets.bucket import is_address
from flame_core.digest import value_digest
from flame_core.errors import FlameError
from flame_core.layout import Layout
from flame_core.params import load_params
from flame_core.settings import settings
from orchestration.dvc_assets import REFRESH_TAG

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
    the sensor is turned on is not a change.
    """

    @dg.sensor(
        name="new_data",
        job_name="pretrain",
        minimum_interval_seconds=60,
        description="Notices new, changed or removed files of local sources and requests a run that downloads again.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            files = local_files(layout)
        except FlameError as error:
            return dg.SkipReason(f"params.yaml cannot be used: {error}")
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


def local_files(layout: Layout) -> dict[str, list[tuple[str, int, int]]]:
    """{local source of params: name, size and time of each of its files}."""
    return {
        name: sorted(_files(layout.resolve(path)))
        for name, source in load_params(layout).sources.items()
        if (path := getattr(source, "path", None)) is not None and not is_address(path)
    }


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


def _files(place: Path) -> Iterator[tuple[str, int, int]]:
    for path in (place, *place.rglob("*")) if place.is_dir() else (place,):
        try:
            if path.is_file():
                about = path.stat()
                yield path.relative_to(place).as_posix(), about.st_size, about.st_mtime_ns
        except OSError:
            continue  # it was removed meanwhile
