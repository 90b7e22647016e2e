"""A training on two nodes: two agents of one process each, which meet at a port of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from flame_core.model_files import METRICS, WEIGHTS
from flame_core.stages import embed
from flame_core.training.job import TrainingJob
from tests.ports import free_port
from tests.processes.test_launcher import ROOT, at_step, job, start
from tests.stages.pipeline import captioned_project
from tests.training.world import recipe, write_world

SCRIPT = """
import sys
from pathlib import Path
from flame_core.errors import FlameError
from flame_core.processes.nodes import nodes
from flame_core.training.job import TrainingJob
try:
    TrainingJob.model_validate_json(Path(sys.argv[1]).read_text()).run_on(1, nodes())
except FlameError as error:
    print(error)
    sys.exit(error.exit_code)
"""


STAGE = """
import json, sys
from pathlib import Path
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.stages import train
if __name__ == "__main__":
    train.run(Params.model_validate_json(Path(sys.argv[1]).read_text()), Layout.find(Path(sys.argv[2])), "plain")
"""


def start_node(work: TrainingJob, rank: int, port: int, **settings: str) -> subprocess.Popen[str]:
    path = work.out / f"job-{rank}.json"
    path.write_text(work.model_dump_json())
    own = {"train_nodes": "2", "node_rank": str(rank), "rendezvous": f"127.0.0.1:{port}", "device": "cpu", **settings}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment |= {f"FLAME_{name.upper()}": value for name, value in own.items()}
    command = [sys.executable, "-c", SCRIPT, str(path)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def start_both(work: TrainingJob, **settings: str) -> list[subprocess.Popen[str]]:
    port = free_port()
    return [start_node(work, rank, port, **settings) for rank in range(2)]


@pytest.mark.slow
def test_two_nodes_train_the_bytes_of_two_processes_also_after_a_kill(tmp_path):
    write_world(tmp_path)
    params = recipe(epochs=40)  # with stochastic depth
    whole, spread = job(tmp_path, "whole", params), job(tmp_path, "spread", params)
    process = start(whole)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output

    both = start_both(spread, checkpoint_seconds="0")
    at_step(spread, 3, both[0])
    (rank,) = [p for p in psutil.Process(both[1].pid).children() if "flame_core.training.job" in p.cmdline()]
    rank.kill()
    outputs = [each.communicate(timeout=400)[0] for each in both]
    assert [each.returncode for each in both] == [5, 5], outputs
    assert "-9" in outputs[1] and "if another node says more" in outputs[0]
    assert not (spread.out / WEIGHTS).exists()

    both = start_both(spread)
    outputs = [each.communicate(timeout=400)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0], outputs
    for name in (WEIGHTS, METRICS):
        assert (spread.out / name).read_bytes() == (whole.out / name).read_bytes()


@pytest.mark.slow
def test_only_the_first_node_writes_the_model(tmp_path, byte_tokenizer):
    params, layout = captioned_project(tmp_path, byte_tokenizer, 24)
    plain = recipe(gates={"max_loss_ratio": 100.0}, epochs=1)
    params = params.model_copy(update={"recipes": ["plain"], "train": {"plain": plain}})
    embed.run(params, layout)
    script, values, port = tmp_path / "stage.py", tmp_path / "values.json", free_port()
    script.write_text(STAGE)
    values.write_text(params.model_dump_json())
    own = {"TRAIN_NODES": "2", "RENDEZVOUS": f"127.0.0.1:{port}", "DEVICE": "cpu", "TRACKING_URI": "off"}
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | {f"FLAME_{name}": value for name, value in own.items()}
    both = [
        subprocess.Popen(
            [sys.executable, script, values, tmp_path],
            env=environment | {"FLAME_NODE_RANK": str(rank)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    outputs = [each.communicate(timeout=500)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0], outputs
    assert (layout.model("plain") / WEIGHTS).is_file()
    assert "first / last loss" in outputs[0] and "first / last loss" not in outputs[1]
    assert not list((layout.work / "train").glob(".tmp*"))  # what the second node needed is gone


@pytest.mark.slow
def test_a_node_that_meets_nobody_says_where(tmp_path):
    write_world(tmp_path)
    work, port, begun = job(tmp_path, "alone", recipe()), free_port(), time.monotonic()
    process = start_node(work, 1, port, join_seconds="3")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 5, output
    assert f"node 1 of 2 did not meet the others at 127.0.0.1:{port} within 3 s" in output
    assert time.monotonic() - begun < 150  # most of it is the import of torch
