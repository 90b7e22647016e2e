"""Several nodes for one training: how many, which one this is, and where they meet.

By the settings, or by the Slurm step that `srun` has started on more than one node (`srun --ntasks-per-node=1`). An
allocation without a step is not taken for one: there the command runs once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from flame_core.errors import ParamsError
from flame_core.settings import settings

_PORTS = (20_000, 10_000)  # first, and how many: the port of a Slurm job follows from its id
_FIRST_HOST = re.compile(r"[^\[,\s](?:[^\[,\s]|\[[^\]]*\])*")
_NUMBERS = re.compile(r"\[(\d+)[^\]]*\]")


@dataclass(frozen=True)
class Nodes:
    """`count` nodes, of which this is number `rank`; they meet at `host`:`port`, which is on node 0."""

    count: int
    rank: int
    host: str
    port: int

    @property
    def first(self) -> bool:
        """Whether this is the node that writes, and tells Dagster and MLflow."""
        return self.rank == 0


def nodes(environment: Mapping[str, str] = os.environ) -> Nodes | None:
    """The nodes of this training; None if it runs on this machine only.

    Raises:
        ParamsError: the settings contradict one another, or the Slurm step has several tasks per node.
    """
    own = settings()
    if own.train_nodes is not None:
        return _by_settings(own.train_nodes, own.node_rank, own.rendezvous)
    if int(environment.get("SLURM_STEP_NUM_NODES", 1)) > 1:
        return _by_slurm(environment)
    return None


def _by_settings(count: int, rank: int | None, rendezvous: str | None) -> Nodes | None:
    if count == 1:
        return None
    if rank is None or rendezvous is None:
        missing = "FLAME_NODE_RANK" if rank is None else "FLAME_RENDEZVOUS"
        raise ParamsError(f"FLAME_TRAIN_NODES={count}, but {missing} is not set")
    if rank >= count:
        raise ParamsError(f"FLAME_NODE_RANK={rank}, but FLAME_TRAIN_NODES={count}: nodes are numbered from 0")
    host, _, port = rendezvous.rpartition(":")
    return Nodes(count, rank, host.strip("[]"), int(port))


def _by_slurm(environment: Mapping[str, str]) -> Nodes:
    count = int(environment["SLURM_STEP_NUM_NODES"])
    if environment.get("SLURM_STEP_NUM_TASKS", str(count)) != str(count):
        raise ParamsError(
            f"srun started {environment['SLURM_STEP_NUM_TASKS']} tasks on {count} nodes; start one per node "
            "(`srun --ntasks-per-node=1`): each starts FLAME_TRAIN_PROCESSES processes"
        )
    first, length = _PORTS
    port = first + int(environment["SLURM_JOB_ID"]) % length
    return Nodes(count, int(environment["SLURM_NODEID"]), first_host(environment["SLURM_STEP_NODELIST"]), port)


def first_host(hosts: str) -> str:
    """The first of a list of hosts as Slurm writes it, such as `gpu[07-09,12],big1`: `gpu07`.

    Raises:
        ParamsError: it is no such list.
    """
    found = _FIRST_HOST.match(hosts)
    if found is None:
        raise ParamsError(f"SLURM_STEP_NODELIST={hosts!r} names no host: set FLAME_TRAIN_NODES and FLAME_RENDEZVOUS")
    return _NUMBERS.sub(r"\1", found[0])
