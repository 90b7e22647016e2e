"""Which nodes a training runs on: by settings, and by the variables of a Slurm step."""

from __future__ import annotations

import pytest

from flame_core.errors import ParamsError
from flame_core.processes.nodes import Nodes, first_host, nodes
from flame_core.settings import settings

STEP = {
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
}


def test_without_settings_and_without_a_step_there_is_this_machine():
    assert nodes({}) is None
    assert nodes(STEP | {"SLURM_STEP_NUM_NODES": "1"}) is None
    assert nodes({"SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "a,b", "SLURM_JOB_ID": "1"}) is None  # no step: salloc


def test_settings_win_over_slurm(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLAME_TRAIN_NODES", "3")
    monkeypatch.setenv("FLAME_NODE_RANK", "2")
    monkeypatch.setenv("FLAME_RENDEZVOUS", "[fd00::1]:29500")
    assert nodes(STEP) == Nodes(3, 2, "fd00::1", 29500)
    monkeypatch.setenv("FLAME_TRAIN_NODES", "1")
    settings.cache_clear()
    assert nodes(STEP) is None


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"FLAME_RENDEZVOUS": "a:1"}, "FLAME_TRAIN_NODES=2, but FLAME_NODE_RANK is not set"),
        ({"FLAME_NODE_RANK": "0"}, "FLAME_TRAIN_NODES=2, but FLAME_RENDEZVOUS is not set"),
        ({"FLAME_NODE_RANK": "2", "FLAME_RENDEZVOUS": "a:1"}, "FLAME_NODE_RANK=2, but FLAME_TRAIN_NODES=2"),
        ({"FLAME_NODE_RANK": "0", "FLAME_RENDEZVOUS": "a"}, "FLAME_RENDEZVOUS: "),
    ],
)
def test_settings_that_do_not_fit_are_told(variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch):
    for name, value in ({"FLAME_TRAIN_NODES": "2"} | variables).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ParamsError, match=message):
        nodes({})


def test_a_slurm_step_says_all():
    assert nodes(STEP) == Nodes(2, 1, "gpu07", 20_000 + 123456 % 10_000)
    assert not nodes(STEP).first and nodes(STEP | {"SLURM_NODEID": "0"}).first
    with pytest.raises(ParamsError, match="16 tasks on 2 nodes; start one per node"):
        nodes(STEP | {"SLURM_STEP_NUM_TASKS": "16"})


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("a", "a"),
        ("a,b", "a"),
        ("n[1-4]", "n1"),
        ("n[08,10-12],big1", "n08"),
        ("c-7.x[003]", "c-7.x003"),
        ("rack[2-3]_blade[07-41],a", "rack2_blade07"),  # slurm.conf(5) allows two ranges
        ("n[1,3]-ib", "n1-ib"),
    ],
)
def test_the_first_host_of_a_list(hosts: str, first: str):
    assert first_host(hosts) == first


def test_a_list_without_a_host_is_refused():
    with pytest.raises(ParamsError, match="names no host"):
        first_host(",")
