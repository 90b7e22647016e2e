"""Runs functions on several real processes that communicate through gloo."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import start_processes

from flame_core.processes.ranks import Ranks, join
from tests.ports import free_port

# Ranks are forks of a process that has imported these, which takes longer than most tests.
multiprocessing.set_forkserver_preload(["torch", "timm", "flame_core.training.loop", "tests.training.world"])


def on_ranks(world: int, fn: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """The results of `fn(ranks, *arguments)` on each rank; `fn` must be importable from a module."""
    given = (world, free_port(), fn, folder, arguments, dict(os.environ))
    start_processes(_child, given, nprocs=world, start_method="forkserver")
    return [torch.load(folder / f"{rank}-of-{world}.pt", weights_only=False) for rank in range(world)]


def _child(
    rank: int,
    world: int,
    port: int,
    fn: Callable[..., Any],
    folder: Path,
    arguments: tuple[Any, ...],
    environ: Mapping[str, str],
) -> None:
    torch.set_num_threads(1)
    os.environ.clear()
    os.environ |= environ
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with join("cpu") as ranks:
        assert ranks == Ranks(rank, world)
        torch.save(fn(ranks, *arguments), folder / f"{rank}-of-{world}.pt")
