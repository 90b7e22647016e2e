"""Builds what Dagster shows of a project: each stage of `dvc.yaml` as an asset, with checks, jobs, schedules, sensors.

`definitions.py` is the module that Dagster loads. Nothing here imports torch, transformers or mlflow.
"""

from __future__ import annotations

import dagster as dg

from flame_core.dvc_project.project import DvcProject
from flame_core.errors import FlameError
from flame_core.graph.links import LINK_STAGE, require_links
from flame_core.layout import Layout
from flame_core.params import Params, load_params
from flame_core.program.user_name import name_user
from flame_core.settings import settings
from orchestration.alert import alert_sensors
from orchestration.automation import jobs, schedules, source_sensor
from orchestration.checks import applicable, read_checks
from orchestration.dagster_dvc.assets import asset_key, dvc_assets
from orchestration.dagster_dvc.lock_sensor import dvc_lock_sensor
from orchestration.experiment import experiment_job
from orchestration.experiment_assets import experiment_assets, experiment_checks
from orchestration.numbers import read_numbers
from orchestration.promotion import promotion_asset
from orchestration.resources import read_tags, require_runnable, runner

PARALLEL_STEPS = 4  # per run; pools (dagster.yaml) limit scarce resources


def build(layout: Layout, *, code_overrides: bool | None = None) -> dg.Definitions:
    """The definitions of the project in `layout`.

    Args:
        layout: the project's.
        code_overrides: whether `experiment` may override params that fetch models or run code; None: as in settings,
            which is right if a web page starts the runs.

    Raises:
        DvcProjectError: `dvc.yaml` or a params file is broken; names the file, line and key.
        ParamsError: `dvc.yaml` lacks what a recipe needs; says what to write.
    """
    name_user()
    params = _checked_params(layout)
    project = DvcProject(layout.root)
    stages = project.stages()
    if params:
        stages = applicable(stages, params)
    allowed = settings().code_overrides if code_overrides is None else code_overrides
    training = dg.AssetSelection.assets(
        *(asset_key(name) for name in stages if name.startswith(("train@", LINK_STAGE)))
    )
    return dg.Definitions(
        assets=[
            *dvc_assets(
                project,
                stages,
                runner=runner(),
                read_checks=read_checks,
                read_tags=read_tags,
                read_numbers=read_numbers,
                require=require_runnable,
            ),
            promotion_asset(layout, stages),
            *experiment_assets(stages),
        ],
        asset_checks=experiment_checks(layout, stages),
        jobs=[*jobs(training), experiment_job(layout, stages, runner(), code_overrides=allowed)],
        schedules=schedules(),
        sensors=[
            dvc_lock_sensor(project, stages, read_checks=read_checks, read_numbers=read_numbers),
            source_sensor(layout),
            *alert_sensors(),
        ],
        executor=dg.multiprocess_executor.configured(
            {
                "max_concurrent": PARALLEL_STEPS,
                "start_method": {"forkserver": {"preload_modules": ["orchestration.definitions"]}},
            }
        ),
    )


def _checked_params(layout: Layout) -> Params | None:
    """The params; None if they cannot be read, which is left to the stages' errors.

    Raises:
        ParamsError: `dvc.yaml` lacks the links of a recipe; says what to write.
    """
    try:
        params = load_params(layout)
    except FlameError:
        return None
    require_links(layout, params)
    return params
