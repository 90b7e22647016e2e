"""The process that delivers a journal while its training runs: `python -m flame_core.tracking.shipper <folder>`.

It is a separate process of low priority, so that neither MLflow's import nor a slow or missing server takes time from
the training. Its standard input is a pipe from its parent: when that closes, because the stage finished or died, the
shipper delivers the remaining events and ends; an outage at that time leaves them for the next run.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from flame_core.reporting import configure_logging
from flame_core.settings import settings
from flame_core.tracking.delivery import deliver
from flame_core.tracking.journal import Journal
from flame_core.tracking.obstacles import Outage, Withheld

_INTERVAL = 5.0  # seconds between two reads of the journal
_LONGEST_WAIT = 60.0  # seconds between two attempts during an outage
_NICE = 19  # the lowest priority: even MLflow's import takes seconds of a core
_PENDING = 75  # exit code: an outage left events behind
log = logging.getLogger(__name__)


def start(journal: Journal, address: str) -> subprocess.Popen[bytes]:
    """Start the shipper of a journal; close its standard input to let it finish."""
    command = [sys.executable, "-m", "flame_core.tracking.shipper", str(journal.folder), address]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


def finish(shipper: subprocess.Popen[bytes]) -> bool:
    """Let the shipper deliver the rest; returns whether all arrived. MLflow's time limits bound every attempt."""
    if shipper.stdin:
        shipper.stdin.close()
    return shipper.wait() == 0


def deliver_all(journals: list[Journal], address: str) -> int:
    """Send the remaining events of all journals, the oldest first; returns their number.

    Raises:
        Outage: the server did not accept one of them.
        Withheld: the run or experiment of some journals is deleted, so their events wait; all others were sent.
    """
    sent, withheld = 0, []
    for journal in journals:
        try:
            sent += deliver(journal, address)
        except Withheld as why:
            withheld.append(str(why))
    if withheld:
        more = len(set(withheld)) - 1
        raise Withheld(withheld[0] + (f" (and {more} more deleted runs or experiments)" if more else ""))
    return sent


def main(folder: Path, address: str) -> int:
    """Deliver until the parent closes the pipe."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the training handles a stop, and closes the pipe when it ends
    os.nice(_NICE)
    gc.disable()  # until MLflow is imported: its objects stay, so collection would only cost time
    configure_logging(settings().log_level)
    closing = threading.Event()
    threading.Thread(target=_wait_for_end, args=(closing,), daemon=True).start()
    wait, said = _INTERVAL, False
    others = Journal.all(folder.parent)  # what earlier outages left behind
    while True:
        last = closing.is_set()
        try:
            deliver_all([Journal(folder), *others], address)
            wait, said, others = _INTERVAL, False, []
        except Outage as outage:
            if not said:
                log.warning("%s; events are kept and sent later", outage)
            if last:
                return _PENDING
            wait, said = min(2 * wait, _LONGEST_WAIT), True
        gc.enable()
        if last:
            return 0
        closing.wait(wait)


def _wait_for_end(closing: threading.Event) -> None:
    sys.stdin.buffer.read()
    closing.set()


if __name__ == "__main__":
    code = main(Path(sys.argv[1]), sys.argv[2])
    logging.shutdown()
    os._exit(code)  # unloading MLflow's modules takes a second, and the training would wait
