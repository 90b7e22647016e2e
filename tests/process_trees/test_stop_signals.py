"""Stop signals as exceptions, and an interface that is asked twice to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from flame_core.layout import Layout
from flame_core.process_trees.stop_signals import Stop, stop_signals
from flame_core.process_trees.tree import ProcessTree
from orchestration.instance import instance_home
from orchestration.ui import servers
from orchestration.ui.servers import Server, end

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_an_exception_and_the_old_handlers_return(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # nohup ignores SIGHUP
    try:
        with pytest.raises(Stop, match=str(int(number))), stop_signals():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_stop_kills_the_servers_that_take_their_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = instance_home(Layout.find(tmp_path))
    tree = ProcessTree("test")
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], env={**os.environ, **tree.environment()}, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline()
    timer = threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGTERM))

    begun, real = 0.0, servers.end_runs

    def end_runs(*given: Any) -> None:
        nonlocal begun
        real(*given)
        begun = time.monotonic()  # from now on, the servers are waited for
        timer.start()

    monkeypatch.setattr(servers, "end_runs", end_runs)
    with stop_signals():
        end({Server("stubborn", ()): process}, tree, home)
        timer.join()
    assert process.wait(5) == -signal.SIGKILL
    assert time.monotonic() - begun < servers.STOP_SECONDS
