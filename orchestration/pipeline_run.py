"""`flame run`: bring stages up to date from a shell, and stop in order.

DVC runs in a session of its own, so Ctrl-C comes to this process alone. It asks the stage to stop, which saves its
state; a second Ctrl-C does not wait for that. What an earlier run left behind when it was killed is ended first.
"""

from __future__ import annotations

import logging
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from flame_core.errors import Interrupted
from flame_core.settings import settings
from flame_core.workspace import environment
from orchestration.dvc_processes import COMMAND, end_abandoned, tree_label
from orchestration.process_tree import ProcessTree

log = logging.getLogger("flame_core.run")


class _Stop(BaseException):
    """A stop signal came; the argument is its number."""


def reproduce(root: Path, targets: Sequence[str]) -> int:
    """`dvc repro` of `targets` (all stages by default) in the project in `root`.

    Returns:
        0, or the exit code of the stage that failed; DVC's own where DVC itself refused.

    Raises:
        Interrupted: a stop signal came; all processes have ended.
    """
    end_abandoned(root, settings().stop_grace_seconds, log.warning)
    tree = ProcessTree(tree_label(root))
    process = subprocess.Popen(
        [*COMMAND, "repro", *targets],
        cwd=root,
        env={**environment(), **tree.environment()},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with _stop_signals():
            return process.wait()
    except _Stop as stop:
        name = signal.Signals(stop.args[0]).name
        try:
            with _stop_signals():
                tree.stop(process.pid, settings().stop_grace_seconds, log.info)
        except _Stop:
            log.warning("not waiting for the stage any longer")
            tree.kill()
        process.wait()
        raise Interrupted(f"stopped by {name}; what was finished is kept, and the same command resumes") from None


@contextmanager
def _stop_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise `_Stop`; one that is ignored (nohup) stays so."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stop(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    old = {number: handler for number in numbers if (handler := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in old:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
