"""The process trees of a DVC project's stages: their label, and ending what a killed run left at work.

Serves any DVC project; imports neither Dagster nor DVC.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from orchestration.process_tree import ProcessTree

DVC = [sys.executable, "-m", "dvc"]  # what a step of Dagster starts
COMMAND = [sys.executable, "-m", "orchestration.dvc_command"]  # what a shell's run starts


def tree_label(root: Path) -> str:
    """Of the process trees of the stages of the project in `root`."""
    return "dvc-" + hashlib.sha256(str(root).encode()).hexdigest()[:12]


def end_abandoned(root: Path, grace_seconds: float, say: Callable[[str], None]) -> None:
    """End what runs in this project whose own process was killed left at work; nobody waits for it."""
    for tree in ProcessTree.abandoned(tree_label(root)):
        say("A run was killed and left processes at work; ending them first.")
        command = next(filter(_is_dvc, tree.members()), None)
        tree.stop(command.pid if command else None, grace_seconds, say)


def _is_dvc(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[: len(DVC)] in (DVC, COMMAND)
    except psutil.Error:
        return False
