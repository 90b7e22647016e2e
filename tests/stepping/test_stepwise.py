"""A training that counts in steps: it stops on a signal after the step at hand, and goes on from there."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from flame_core.errors import Interrupted
from flame_core.stepping.stepwise import take_steps, trained_unit
from flame_core.work import UnitRecord, WorkCache


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_keeps_the_step_that_was_taken(tmp_path, number):
    taken: list[int] = []

    def trained(folder: str, stop: int | None) -> tuple[bytes, list[dict]]:
        model = torch.nn.Linear(2, 1)
        torch.nn.init.constant_(model.weight, 0.5)
        torch.nn.init.zeros_(model.bias)
        optimizer = torch.optim.AdamW([{"params": list(model.parameters()), "multiplier": 0.5}])

        def step(at: int) -> dict[str, float]:
            taken.append(at)
            if at == stop:
                os.kill(os.getpid(), number)
            optimizer.zero_grad()
            loss = (model(torch.tensor([[1.0, at]])) - at).square().sum()
            loss.backward()
            optimizer.step()
            return {"loss": loss.item()}

        checkpoints = tmp_path / folder
        rows = take_steps(model, optimizer, step, 6, rate=lambda at: 0.3 / (1 + at), checkpoints=checkpoints, title="t")
        return model.weight.detach().numpy().tobytes(), rows

    with pytest.raises(Interrupted, match="stopped after step 3 of 6; run again to resume"):
        trained("killed", 2)
    resumed, whole = trained("killed", None), trained("whole", None)
    assert resumed == whole and taken == [0, 1, 2, 3, 4, 5, *range(6)]
    assert [row["learning_rate"] for row in whole[1]] == [0.5 * (0.3 / (1 + at)) for at in range(6)]


def test_checkpoints_belong_to_the_inputs_and_go_when_the_unit_is_there(tmp_path):
    cache, given = WorkCache(tmp_path, "adapt_llm"), list[Path]()

    def train(folder: Path, checkpoints: Path) -> UnitRecord:
        given.append(checkpoints)
        checkpoints.mkdir(parents=True, exist_ok=True)
        if len(given) == 1:
            raise KeyboardInterrupt
        (folder / "file").write_text("done")
        return UnitRecord()

    with pytest.raises(KeyboardInterrupt):
        trained_unit(cache, {"a": 1}, train)
    trained_unit(cache, {"a": 2}, train)
    assert given[0].parent == given[1].parent == tmp_path / "adapt-llm-checkpoints" and given[0] != given[1]
    assert [path.name for path in given[0].parent.iterdir()] == [given[0].name]
    first = trained_unit(cache, {"a": 1}, train)
    assert given[2] == given[0] and not list(given[0].parent.iterdir())
    assert trained_unit(cache, {"a": 1}, train).sha256 == first.sha256 and len(given) == 3
