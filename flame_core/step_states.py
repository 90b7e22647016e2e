"""A training that counts in steps, with its states in a work cache: a killed one continues at its last state.

A state is a unit whose digest names its step: weights, AdamW's moments, and a row of metrics per step so far. Older
states are removed when a newer one is there.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from flame_core.digest import json_lines_bytes
from flame_core.errors import Interrupted
from flame_core.files.whole_folders import alone
from flame_core.processes.stop_request import stop_requested
from flame_core.reporting import progress
from flame_core.work import UnitRecord, WorkCache

STATE, METRICS = "state.safetensors", "metrics.jsonl"
_OPTIMIZER = "optimizer."

Row = dict[str, float]


@dataclass(frozen=True)
class StepStates:
    """The states of one training.

    Attributes:
        cache: of the stage.
        inputs: all that the result follows from.
        steps: of the whole training.
    """

    cache: WorkCache
    inputs: Mapping[str, Any]
    steps: int

    def train(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        step: Callable[[int], Row],
        *,
        title: str,
        shown: str,
        seconds: float,
    ) -> list[Row]:
        """Take the steps that are left; a row of metrics per step.

        Args:
            model: whose weights a state holds.
            optimizer: of these weights.
            step: takes the step of a number, from 0 on.
            title: of the progress.
            shown: the metric that the progress shows as the loss.
            seconds: between two states.

        Raises:
            Interrupted: a stop signal came; the state was kept.
        """
        with alone(self.cache.folder / self._digest(self.steps)):
            done, rows = self.resume(model, optimizer)
            last = time.monotonic()
            with stop_requested() as stopped, progress(title, self.steps, "steps", done) as bar:
                for number in range(done, self.steps):
                    rows.append(step(number))
                    bar.advance(1, loss=rows[-1][shown])
                    ends = number + 1 == self.steps
                    if ends or stopped or time.monotonic() - last >= seconds:
                        self.keep(model, optimizer, rows)
                        last = time.monotonic()
                    if stopped and not ends:
                        raise Interrupted(f"stopped after step {number + 1} of {self.steps}; run again to resume")
            return rows

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, list[Row]]:
        """The number of steps of the newest undamaged state, which is loaded, and their metrics."""
        for steps in range(self.steps, 0, -1):
            if (unit := self.cache.find(self._digest(steps))) is not None:
                tensors = load_file(unit.file(STATE))
                model.load_state_dict({k: w for k, w in tensors.items() if not k.startswith(_OPTIMIZER)})
                moments: dict[int, dict[str, Tensor]] = {}
                for name, value in tensors.items():
                    if name.startswith(_OPTIMIZER):
                        number, _, what = name.removeprefix(_OPTIMIZER).partition(".")
                        moments.setdefault(int(number), {})[what] = value
                groups = optimizer.state_dict()["param_groups"]
                optimizer.load_state_dict({"state": moments, "param_groups": groups})
                return steps, [json.loads(line) for line in unit.file(METRICS).read_text("utf-8").splitlines()]
        return 0, []

    def keep(self, model: nn.Module, optimizer: torch.optim.Optimizer, rows: list[Row]) -> None:
        """Write the state after as many steps as there are rows, and remove those before it."""
        tensors = {name: w.detach().cpu().contiguous() for name, w in sorted(model.state_dict().items())}
        for number, moments in sorted(optimizer.state_dict()["state"].items()):
            for what, value in sorted(moments.items()):
                tensors[f"{_OPTIMIZER}{number}.{what}"] = value.detach().cpu().contiguous()

        def write(folder: Any) -> UnitRecord:
            (folder / STATE).write_bytes(save(tensors))
            (folder / METRICS).write_bytes(json_lines_bytes(rows))
            return UnitRecord({"steps": len(rows)})

        self.cache.compute(self._digest(len(rows)), write)
        for steps in range(1, len(rows)):
            shutil.rmtree(self.cache.folder / self._digest(steps), ignore_errors=True)

    def _digest(self, steps: int) -> str:
        return self.cache.digest({**self.inputs, "steps": steps})


def rate_share(step: int, steps: int, warmup_steps: int) -> float:
    """The share of the highest learning rate at a step: a linear rise, then a cosine to 0."""
    rise = min(1.0, (step + 1) / (warmup_steps + 1))
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))
