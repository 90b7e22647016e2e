"""Tells DVC of a stage that ran outside of it and whose out follows from more than DVC knows.

That is a retry (`flame download --retry-failed`, also of `ingest` and `caption`), and a stage run by hand that reads
files of this machine (`outside/`). DVC would skip it, or bring back what it has. So the new out is recorded with
`dvc commit`: `dvc.lock` says what is there, and `flame run` brings only the following stages up to date.
"""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec

from flame_core.dvc_project.recorded import recorded_stages
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.workspace import environment


def record_stage(layout: Layout, stage: str) -> bool:
    """Record the out of a stage that has just run with the present params and inputs.

    Returns:
        whether there was something to record: not if DVC itself runs the stage, or `dvc.lock` does not have it.

    Raises:
        InputError: DVC refused.
    """
    if "DVC_STAGE" in os.environ or stage not in recorded_stages(layout.root) or find_spec("dvc") is None:
        return False
    from flame_core.dvc_project.stage_processes import COMMAND

    code = subprocess.run([*COMMAND, "commit", "--force", stage], cwd=layout.root, env=environment()).returncode
    if code:
        raise InputError(
            f"what {stage} made is in {layout.data}, but `dvc commit --force {stage}` ended with {code}: run it again "
            f"in {layout.root}, or dvc.lock describes what was there before"
        )
    return True
