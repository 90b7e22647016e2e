"""The loop on small real shards and a small real store: it learns, resumes exactly and stops cleanly."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flame_core.errors import ComputationError, Interrupted
from flame_core.processes.ranks import Ranks
from flame_core.settings import settings
from flame_core.stepping import checkpoint
from flame_core.text.store import Drawn
from flame_core.training.loader import EpochOrder, TrainingSamples, create_loader
from flame_core.training.loop import _not_finite, train
from flame_core.training.told import Read
from tests.training.world import HIDDEN, recipe, samples_of, write_world


@pytest.fixture
def data(tmp_path):
    """Training samples of a recipe."""
    write_world(tmp_path)
    return lambda params: samples_of(tmp_path, params)


def weights(tower: torch.nn.Module) -> dict[str, bytes]:
    return {name: weight.numpy().tobytes() for name, weight in tower.state_dict().items()}


def test_it_learns_and_reports_every_step(data, tmp_path):
    params = recipe(epochs=20)
    _, metrics, _ = train(data(params), params, tmp_path / "checkpoints")
    assert [row["step"] for row in metrics] == list(range(60))
    assert metrics[-1]["epoch"] == 19
    assert metrics[-1]["loss"] < 0.75 * metrics[0]["loss"]
    assert metrics[0]["logit_scale"] != metrics[-1]["logit_scale"] >= 1.0


@pytest.mark.parametrize("stop", [1, 4, 11])
def test_a_stopped_training_resumes_bit_for_bit(data, tmp_path, monkeypatch, caplog, stop):
    """Stopped by a real signal after `stop` steps, with stochastic depth, it ends like an undisturbed one."""
    params = recipe()
    handler = signal.getsignal(signal.SIGTERM)
    whole, whole_metrics, _ = train(data(params), params, tmp_path / "a")
    samples = data(params)
    fetched = 0
    original = TrainingSamples.__getitem__

    def counting(self, batch):
        nonlocal fetched
        fetched += 1
        if fetched == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch)

    monkeypatch.setattr(TrainingSamples, "__getitem__", counting)
    with pytest.raises(Interrupted, match="run again to resume"):
        train(samples, params, tmp_path / "b")
    monkeypatch.undo()
    torch.manual_seed(1234)  # nothing of the first process survives but the checkpoint
    caplog.set_level(logging.INFO, "flame_core")
    resumed, resumed_metrics, _ = train(data(params), params, tmp_path / "b")
    step = checkpoint.resumed_at(tmp_path / "b")
    assert step and f"the training resumes at step {step}, from" in caplog.text
    assert len(resumed_metrics) > step >= stop - 1
    assert weights(resumed) == weights(whole)
    assert resumed_metrics == whole_metrics
    assert signal.getsignal(signal.SIGTERM) == handler


def test_checkpoints_by_time_do_not_change_the_result(data, tmp_path, monkeypatch):
    params = recipe()
    plain, _, _ = train(data(params), params, tmp_path / "a")
    every_step = settings().model_copy(update={"checkpoint_seconds": 0.0})
    monkeypatch.setattr("flame_core.training.loop.settings", lambda: every_step)
    saved, _, _ = train(data(params), params, tmp_path / "b")
    assert weights(saved) == weights(plain)
    assert checkpoint.load(tmp_path / "b").step == 17  # all but the last of 18


def test_a_damaged_checkpoint_is_said_and_the_one_before_it_taken(data, tmp_path, monkeypatch, caplog):
    params = recipe(epochs=2)
    every_step = settings().model_copy(update={"checkpoint_seconds": 0.0})
    monkeypatch.setattr("flame_core.training.loop.settings", lambda: every_step)
    plain, _, _ = train(data(params), params, tmp_path / "a")
    newest, before = sorted((tmp_path / "a").iterdir(), reverse=True)  # the last two stay
    assert (newest.name, before.name) == ("step-00000005", "step-00000004")
    part = newest / "00000.pt"
    part.write_bytes(part.read_bytes()[:-2000])
    assert checkpoint.load(tmp_path / "a").step == 4
    (before / "00000.pt").unlink()
    again, _, _ = train(data(params), params, tmp_path / "a")
    assert weights(again) == weights(plain)
    assert caplog.text.count("is damaged") == 2  # each once: it is removed


def test_a_non_finite_loss_names_the_step_and_the_keys(data, tmp_path):
    params = recipe(objective={"name": "multi_positive_sigmoid", "logit_bias": 1e300})
    with pytest.raises(ComputationError, match=r"step 0 is (inf|nan): correct the values .*toys/\d\d, toys/\d\d"):
        train(data(params), params, tmp_path / "checkpoints")
    params = recipe(terms=[{"name": "feature"}], teacher={"path": "here"})
    read = Read({"multi_positive_sigmoid": 2.0, "feature": math.inf}, {}, False, False)
    said = r"step 0 is inf \(of feature\): correct the values of train\.terms, .*begin with a, b$"
    assert re.search(said, str(_not_finite(read, 0, ["a", "b"], params)))
    params = recipe(optimizer={"learning_rate": 1e30})
    with pytest.raises(ComputationError, match=r"step 1 is nan: lower train\.optimizer\.learning_rate \(1e\+30\)"):
        train(data(params), params, tmp_path / "others")


@pytest.mark.parametrize("decoder", ["pil", "torchvision", "nvjpeg"])
def test_loader_workers_do_not_change_a_batch(data, decoder):
    params = recipe(decoder=decoder)
    alone = list(create_loader(data(params), EpochOrder(24, 8, 2, 0), 0, pin_memory=False))
    helped = list(create_loader(data(params), EpochOrder(24, 8, 2, 0), 2, pin_memory=False))
    for a, b in zip(alone, helped, strict=True):
        assert a.keys == b.keys
        assert torch.equal(a.on("cpu").pictures, b.on("cpu").pictures)
        assert torch.equal(a.on("cpu").texts, b.on("cpu").texts)


@pytest.mark.parametrize(
    ("hard", "said"), [(400, "3\n3\n"), (250, "open, 300 in all, but this machine allows 250 per process")]
)
def test_more_shards_than_a_process_may_open_files_at_first(tmp_path, hard, said):
    """In a separate process, since a lowered hard limit cannot be raised again."""
    write_world(tmp_path)
    command = [sys.executable, "-m", "tests.training.open_files", str(tmp_path), str(hard)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert said in done.stdout, done.stderr


def test_the_order_is_a_permutation_an_epoch_and_continues_at_any_step():
    whole = list(EpochOrder(10, 4, 3, seed=5))
    assert list(EpochOrder(10, 4, 3, seed=5, first_step=3)) == whole[3:]
    assert [epoch for batch in whole for epoch, _ in batch] == [0] * 8 + [1] * 8 + [2] * 8
    epochs = [[n for batch in whole for e, n in batch if e == epoch] for epoch in range(3)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert list(EpochOrder(10, 4, 3, seed=6)) != whole


def test_the_parts_of_the_ranks_are_the_batch_of_one():
    whole = list(EpochOrder(10, 4, 3, seed=5, first_step=2))
    parts = [list(EpochOrder(10, 4, 3, 5, 2, Ranks(rank, 2))) for rank in range(2)]
    assert [first + second for first, second in zip(*parts, strict=True)] == whole


def test_texts_are_drawn_without_repetition_and_anew_each_epoch(data):
    params = recipe()
    samples = data(params)
    store = samples.texts
    every = store.read([Drawn("train/00000.tar", 3, [0, 1, 2])])[0]
    drawn = set()
    for epoch in range(30):
        batch = samples[[(epoch, 3), (epoch, 5)]]
        assert batch.keys == ["toys/03", "toys/05"]
        assert batch.texts.shape == (2, 2, HIDDEN)
        texts = batch.on("cpu").texts[0]
        rows = tuple(int((every == row).all(dim=1).nonzero()) for row in texts)
        assert len(set(rows)) == 2
        assert batch.facets[0].tolist() == [{0: 1, 1: 1, 2: 2}[row] for row in rows]  # of raw/1, short/1, short/2
        drawn.add(rows)
    assert {rows[0] for rows in drawn} == {rows[1] for rows in drawn} == {0, 1, 2}  # any facet at any place
