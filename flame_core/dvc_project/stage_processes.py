"""The process trees of a DVC project's stages: their label, and ending those left running by a killed run.

Works for any DVC project; imports neither Dagster nor DVC.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from flame_core.process_trees.tree import ProcessTree

DVC = [sys.executable, "-m", "flame_core.dvc_project.whole_files"]  # of any project
COMMAND = [sys.executable, "-m", "flame_core.repro.command"]  # the same, with what FLAME adds
PLAIN = [sys.executable, "-m", "dvc"]  # started by `flame reproduce`, whose code may be older
NO_WAIT = "--no-wait"  # first argument of COMMAND where the caller waits for other DVC processes itself


def tree_label(root: Path) -> str:
    """The label of the process trees of stages of the project in `root`."""
    return "dvc-" + hashlib.sha256(str(root).encode()).hexdigest()[:12]


def end_abandoned(root: Path, grace_seconds: float, say: Callable[[str], None]) -> None:
    """End the stages of this project that still run although the process of their run was killed."""
    for tree in ProcessTree.abandoned(tree_label(root)):
        say("A run was killed and left processes running; ending them first.")
        command = next(filter(_is_dvc, tree.members()), None)
        tree.stop(command.pid if command else None, grace_seconds, say)


def _is_dvc(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[: len(DVC)] in (DVC, COMMAND, PLAIN)
    except psutil.Error:
        return False
