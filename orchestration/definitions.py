"""The definitions that Dagster loads: every stage of `dvc.yaml` as an asset, with checks, jobs, schedules and sensors.

    flame ui                                          # the web interface
    dg check defs                                    # checks that Dagster accepts the definitions

Run it in the project's root folder. Nothing here imports torch, transformers or mlflow.
"""

from __future__ import annotations

from flame_core.layout import Layout
from orchestration.project_definitions import build

defs = build(Layout.find())
