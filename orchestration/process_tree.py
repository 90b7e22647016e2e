"""Processes that belong together, and how to stop them without losing work.

Every process of a tree carries a token in its environment, which all that it starts inherit. So the tree is found
whole, also where a process began a session of its own (torchrun's workers do) or lost its parent.

`stop` asks the heads first: the outermost processes of a stage that are no shell, such as `flame train` or torchrun's
agent. They get SIGTERM, finish their step, checkpoint and take their workers along. The command that started them
(`dvc`) is left to see them end, so that it releases its locks. What is left after the grace period is killed.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterable

import psutil

TOKEN = "DVC_ASSETS_PROCESS_TREE"
_SHELLS = {"sh", "dash", "bash", "zsh", "ksh", "fish", "busybox"}
_SETTLE_SECONDS = 15.0  # for the outer command to release its locks once its stage has ended
_POLL_SECONDS = 0.1


class ProcessTree:
    """All processes that carry this tree's token."""

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex

    def environment(self) -> dict[str, str]:
        """What a process and its descendants must have in their environment to belong to the tree.

        They still belong to every tree that this process belongs to.
        """
        return {TOKEN: " ".join(filter(None, (os.environ.get(TOKEN), self.token)))}

    def members(self) -> list[psutil.Process]:
        """The living processes of the tree, in no order."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            owned = self.token in process.environ().get(TOKEN, "").split()
            return owned and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            return False

    def stop(self, command: int, grace_seconds: float, say: Callable[[str], None]) -> None:
        """End the tree; `command` is the pid of the process that started the rest.

        Returns when no process of the tree is left. May be called again when it was interrupted.
        """
        deadline = time.monotonic() + grace_seconds
        asked: set[int] = set()
        while (stage := self._without(command)) and time.monotonic() < deadline:
            for process in _heads(stage):
                if process.pid not in asked and self._owns(process):  # it may have ended since it was listed
                    asked.add(process.pid)
                    say(f"asking process {process.pid} ({_name(process)}) to stop; up to {grace_seconds:.0f} s for it")
                    _signal(process, signal.SIGTERM)
            time.sleep(_POLL_SECONDS)
        if stage := self._without(command):
            names = ", ".join(f"{process.pid} ({_name(process)})" for process in stage)
            say(f"killing what did not stop within {grace_seconds:.0f} s: {names}")
            self._kill(lambda: self._without(command))
        if not asked and psutil.pid_exists(command):  # no stage ran: the command itself was at work
            _signal_pid(command, signal.SIGINT)
        settle = time.monotonic() + _SETTLE_SECONDS
        while (left := self.members()) and time.monotonic() < settle:
            for process in (p for p in left if p.pid != command and p.pid not in asked):  # its next command
                asked.add(process.pid)
                _signal(process, signal.SIGTERM)
            time.sleep(_POLL_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End every process of the tree at once."""
        self._kill(self.members)

    def _without(self, command: int) -> list[psutil.Process]:
        return [process for process in self.members() if process.pid != command]

    def _kill(self, find: Callable[[], Iterable[psutil.Process]]) -> None:
        while found := list(find()):
            for process in found:
                _signal(process, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)


def _heads(processes: list[psutil.Process]) -> list[psutil.Process]:
    """The outermost processes that are no shell; shells that run nothing are heads as well."""
    workers = {process.pid for process in processes if not _is_shell(process)}
    ancestors = {process.pid: _ancestors(process) for process in processes}
    heads = []
    for process in processes:
        if process.pid in workers:
            if not workers.intersection(ancestors[process.pid]):
                heads.append(process)
        elif not any(process.pid in above for above in ancestors.values()):
            heads.append(process)
    return heads


def _ancestors(process: psutil.Process) -> set[int]:
    try:
        return {parent.pid for parent in process.parents()}
    except psutil.Error:
        return set()


def _is_shell(process: psutil.Process) -> bool:
    try:
        return process.name() in _SHELLS
    except psutil.Error:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:120] or process.name()
    except psutil.Error:
        return "ended"


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except (psutil.Error, OSError):
        return


def _signal_pid(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        return
