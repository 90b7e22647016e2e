"""Processes that belong together, and how to stop them without losing work.

Every process of a tree has a token in its environment, which its child processes inherit. So the whole tree can be
found, even if a process started its own session (as torchrun's workers do) or lost its parent.

`stop` asks the heads first: the outermost processes of a stage that are not shells, such as `flame train` or torchrun's
agent. They get SIGTERM, finish their step, write a checkpoint and stop their workers. The command that started them
(`dvc`) keeps running until they end, so that it releases its locks. Processes left after the grace period are killed.

If the process that made a tree is killed, it cannot stop the tree. Its pid is part of the token, so a later process
finds such an `abandoned` tree, and stops it in the same order.
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
_IDLE_SECONDS = 2.0  # in which a shell passes on its command's exit code, on a busy machine too
_POLL_SECONDS = 0.1


class ProcessTree:
    """All processes with this tree's token. `label` names the purpose of the tree, in one word."""

    def __init__(self, label: str) -> None:
        self.token = f"{label}:{os.getpid()}:{uuid.uuid4().hex}"

    @classmethod
    def of(cls, token: str) -> ProcessTree:
        """The tree with this token."""
        tree = cls(token.partition(":")[0])
        tree.token = token
        return tree

    @classmethod
    def abandoned(cls, label: str) -> list[ProcessTree]:
        """Trees with this label that still have processes although the process that made them has ended."""
        found = {token for process in psutil.process_iter() for token in _tokens(process)}
        trees = [cls.of(token) for token in sorted(found) if token.partition(":")[0] == label]
        return [tree for tree in trees if tree.is_abandoned()]

    def is_abandoned(self) -> bool:
        """Whether the process that made this tree has ended."""
        owner = self.token.partition(":")[2].partition(":")[0]  # no number if somebody else has set the variable
        return owner.isdecimal() and not _alive(int(owner))

    def environment(self) -> dict[str, str]:
        """The environment variable that makes a process and its descendants belong to the tree.

        They also belong to every tree that this process belongs to.
        """
        return {TOKEN: " ".join(filter(None, (os.environ.get(TOKEN), self.token)))}

    def members(self) -> list[psutil.Process]:
        """The living processes of the tree, in no particular order."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        return self.token in _tokens(process)

    def stop(self, command: int | None, grace_seconds: float, say: Callable[[str], None]) -> None:
        """End the tree; `command` is the pid of the process that started the others, if it still runs.

        Returns when no process of the tree is left. May be called again if it was interrupted.
        """
        deadline = time.monotonic() + grace_seconds
        asked: set[int] = set()
        idle: dict[int, float] = {}  # heads, and since when they are
        patience = min(_IDLE_SECONDS, grace_seconds / 2)
        while (stage := self._without(command)) and time.monotonic() < deadline:
            heads, now = _heads(stage), time.monotonic()
            idle = {process.pid: idle.get(process.pid, now) for process in heads}
            for process in heads:
                if _is_shell(process) and now - idle[process.pid] < patience:
                    continue  # its command has ended; it may end soon, with that exit code
                if process.pid not in asked and self._owns(process):  # it may have ended since it was listed
                    asked.add(process.pid)
                    say(f"asking process {process.pid} ({_name(process)}) to stop; waiting up to {grace_seconds:.0f} s")
                    _signal(process, signal.SIGTERM)
            time.sleep(_POLL_SECONDS)
        if stage := self._without(command):
            names = ", ".join(f"{process.pid} ({_name(process)})" for process in stage)
            say(f"killing processes that did not stop within {grace_seconds:.0f} s: {names}")
            self._kill(lambda: self._without(command))
        if command and not asked and psutil.pid_exists(command):  # no stage ran, only the command itself
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

    def _without(self, command: int | None) -> list[psutil.Process]:
        return [process for process in self.members() if process.pid != command]

    def _kill(self, find: Callable[[], Iterable[psutil.Process]]) -> None:
        while found := list(find()):
            for process in found:
                _signal(process, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)


def _tokens(process: psutil.Process) -> list[str]:
    """The tokens of a living process."""
    try:
        tokens = process.environ().get(TOKEN, "").split()
        return tokens if tokens and process.status() != psutil.STATUS_ZOMBIE else []
    except (psutil.Error, OSError):
        return []


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _heads(processes: list[psutil.Process]) -> list[psutil.Process]:
    """The outermost processes that are not shells; shells without child processes are heads too."""
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
