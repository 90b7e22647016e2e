"""The comparison of align-then-LM with the LM loss: both arms on a tiny project, and no run twice."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from benchmarks import prompted_captions
from flame_core.stages import train
from tests.captioning.world import described_project


@pytest.fixture
def ran(tmp_path, byte_tokenizer, monkeypatch):
    """Runs the benchmark on a small project, and returns the lines of its results."""
    monkeypatch.setenv("FLAME_DEVICE", "cpu")
    monkeypatch.setenv("FLAME_WORKERS", "1")
    params, layout = described_project(tmp_path, byte_tokenizer, 24)
    train.run(params, layout, "aligned")
    monkeypatch.setattr(prompted_captions, "load_params", lambda layout: params)
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results.jsonl"
    command = ["prompted_captions", "--pairs", "8", "--seeds", "0", "--steps", "4", "--batch", "4"]
    command += ["--recipe", "aligned", "--results", str(results)]

    def run(*options: str) -> list[dict]:
        monkeypatch.setattr(sys, "argv", [*command, *options])
        prompted_captions.main()
        return [json.loads(line) for line in results.read_text().splitlines()]

    return run


def test_both_arms_are_run_once_and_told_in_a_table(ran, monkeypatch, capsys):
    rows = ran()
    assert [row["arm"] for row in rows] == ["lm", "align-then-lm"]
    assert all(row["scores"]["loss"] > 0 and row["shown"] for row in rows)
    assert "| 8 | 4 | align-then-lm | 1 |" in capsys.readouterr().out
    monkeypatch.setattr(prompted_captions, "trained", None)
    assert len(ran()) == 2


def test_a_longer_alignment_is_an_arm_that_tells_what_it_explains(ran, monkeypatch, capsys):
    monkeypatch.setattr(prompted_captions, "HELD", 6)
    short, longer = ran("--alignment", "2", "60")
    assert (short["arm"], longer["arm"]) == ("align-2-then-lm", "align-60-then-lm")
    assert longer["explained"]["learned"] > short["explained"]["learned"] and "others" in longer["explained"]
    assert longer["before"].keys() == longer["scores"].keys()
    assert "align-60-then-lm | 1 |" in capsys.readouterr().out


def test_batches_draw_all_samples_alike_and_put_similar_lengths_together():
    lengths = torch.arange(100)
    found = prompted_captions.batches(lengths, 8, 500, torch.Generator().manual_seed(0))
    assert found.shape == (500, 8)
    assert found.flatten().bincount(minlength=100).float().std() < 8  # 40 each; 6.3 if drawn alike
    spread = (lengths[found].max(dim=1).values - lengths[found].min(dim=1).values).float().mean()
    assert spread < 20  # 78 of batches that are drawn one by one
    assert found[:250].float().mean() == pytest.approx(49.5, abs=4)  # early batches are not the short ones


@pytest.mark.parametrize("name", prompted_captions.ARMS)
def test_the_table_tells_means_of_seeds(name):
    scores = {"loss": 1.0, "loss_of_others": 2.0, "cider": 0.5, "bleu_4": 0.25, "distinct": 1.0}
    run = {"recipe": "lit", "pairs": 60, "steps": 9, "arm": name}
    rows = [{**run, "scores": {**scores, "loss": loss}} for loss in (1.0, 2.0)]
    assert f"| lit | 60 | 9 | {name} | 2 | 1.500 / 2.000 | 0.500 | 25.0% | 100% |  |" in prompted_captions.table(rows)
