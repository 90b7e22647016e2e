"""`flame run`: bring stages up to date from a shell, and stop in order.

DVC runs in its own session, so only this process receives Ctrl-C. It asks the stage to stop, which saves its state; a
second Ctrl-C does not wait for that. Processes left behind by an earlier, killed run are ended first.
"""

from __future__ import annotations

import logging
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from flame_core.dvc_project.stage_processes import COMMAND, end_abandoned, tree_label
from flame_core.errors import Interrupted
from flame_core.process_trees.stop_signals import Stop, stop_signals
from flame_core.process_trees.tree import ProcessTree
from flame_core.settings import settings
from flame_core.workspace import environment

log = logging.getLogger("flame_core.run")
_SIGNALLED = 128  # what a shell adds to the number of the signal that ended a command


def reproduce(root: Path, targets: Sequence[str]) -> int:
    """`dvc repro` of `targets` (all stages by default) in the project in `root`.

    Returns:
        0, or the exit code of the stage that failed, or DVC's own if DVC refused.

    Raises:
        Interrupted: a stop signal came; all processes have ended.
    """
    code = run_in_order(root, [*COMMAND, "repro", *targets], environment())
    if code >= 0:
        return code
    log.error("DVC was ended by %s; what was finished is kept, and the same command resumes", _name(-code))
    return _SIGNALLED - code


def run_in_order(root: Path, command: Sequence[str], variables: Mapping[str, str], *, errors: bool = True) -> int:
    """Run a command of DVC in the project in `root`; its stages stop in order when this process is to stop.

    Args:
        root: of the project.
        command: with its arguments.
        variables: its environment.
        errors: whether its standard error is shown.

    Returns:
        its exit code; of a signal the negative number.

    Raises:
        Interrupted: a stop signal came; all processes have ended.
    """
    end_abandoned(root, settings().stop_grace_seconds, log.warning)
    tree = ProcessTree(tree_label(root))
    process = subprocess.Popen(
        command,
        cwd=root,
        env={**variables, **tree.environment()},
        stdin=subprocess.DEVNULL,
        stderr=None if errors else subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with stop_signals():
            if (code := process.wait()) < 0:  # somebody killed DVC, whose stage goes on
                tree.stop(None, settings().stop_grace_seconds, log.info)
            return code
    except Stop as stop:
        name = _name(stop.args[0])
        try:
            with stop_signals():
                tree.stop(process.pid, settings().stop_grace_seconds, log.info)
        except Stop:
            log.warning("not waiting for the stage any longer")
            tree.kill()
        process.wait()
        raise Interrupted(f"stopped by {name}; what was finished is kept, and the same command resumes") from None


def _name(number: int) -> str:
    return signal.Signals(number).name
