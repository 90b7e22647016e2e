"""A training in states: it stops on a signal after the step at hand, and goes on from there."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from flame_core.errors import Interrupted
from flame_core.step_states import StepStates
from flame_core.work import WorkCache


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_keeps_the_step_that_was_taken(tmp_path, number):
    def trained(folder: str, stop: int | None) -> tuple[bytes, list[dict]]:
        model = torch.nn.Linear(2, 1)
        torch.nn.init.constant_(model.weight, 0.5)
        torch.nn.init.zeros_(model.bias)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)

        def step(at: int) -> dict[str, float]:
            if at == stop:
                os.kill(os.getpid(), number)
            optimizer.zero_grad()
            loss = (model(torch.tensor([[1.0, at]])) - at).square().sum()
            loss.backward()
            optimizer.step()
            return {"loss": loss.item()}

        states = StepStates(WorkCache(tmp_path / folder, "adapt_llm"), {"a": 1}, 6)
        rows = states.train(model, optimizer, step, title="t", shown="loss", seconds=1e9)
        return model.weight.detach().numpy().tobytes(), rows

    with pytest.raises(Interrupted, match="stopped after step 3 of 6; run again to resume"):
        trained("killed", 2)
    assert trained("killed", None) == trained("whole", None)
