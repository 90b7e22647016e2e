"""`flame download --retry-failed`, `flame ingest --retry-failed`, `flame caption --retry-failed`: retry, then tell DVC.

DVC skips a stage whose params and inputs are unchanged, so a retry runs outside of it. Its new out is then recorded
with `dvc commit`, so that `dvc.lock` says what is there and `flame run` brings only the following stages up to date.
"""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec

from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.tracking.provenance import read_lock
from flame_core.workspace import environment


def record_retried(layout: Layout, stage: str) -> bool:
    """Record the out of a stage that has just run with the present params and inputs.

    Returns:
        whether there was something to record: not if DVC itself runs the stage, or `dvc.lock` does not have it.

    Raises:
        InputError: DVC refused.
    """
    if "DVC_STAGE" in os.environ or stage not in read_lock(layout.root) or find_spec("dvc") is None:
        return False
    from orchestration.dvc_project.stage_processes import COMMAND

    code = subprocess.run([*COMMAND, "commit", "--force", stage], cwd=layout.root, env=environment()).returncode
    if code:
        raise InputError(
            f"the retried data are in {layout.data}, but `dvc commit --force {stage}` ended with {code}: run it again "
            f"in {layout.root}, or dvc.lock describes the data before the retry"
        )
    return True
