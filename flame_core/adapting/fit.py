"""Training of the LLM's adapters, a step at a time, so that a killed one continues at its last state, with equal bytes.

A batch whose captions do not fit into memory together is read in pieces (`stepping/pieces.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from flame_core.adapting.contrast import HeldOut, caption_contrast, held_out
from flame_core.adapting.pairs import CaptionPairs, Text, said_again
from flame_core.adapting.reading import CaptionReader
from flame_core.errors import ComputationError
from flame_core.params import AdaptLLMParams
from flame_core.processes.gpu import memory_advice
from flame_core.stepping.checkpoint import Metrics
from flame_core.stepping.learning_rate import learning_rate
from flame_core.stepping.pieces import in_pieces
from flame_core.stepping.stepwise import take_steps

_MEASURED = 10  # how often held-out pairs are measured after the first time, at most
_APART = 50  # steps between two measurements, at least
_CLIPPED = 1.0  # norm of the gradient

Pair = tuple[Text, Text]


@dataclass(frozen=True)
class Fit:
    """A training; `run` takes the steps that its checkpoints do not hold.

    Attributes:
        params: of the section.
        pairs: to learn, and held out.
        reader: the LLM, whose adapters are trained in place.
        checkpoints: the folder of states.
    """

    params: AdaptLLMParams
    pairs: CaptionPairs
    reader: CaptionReader
    checkpoints: Path

    def run(self) -> Metrics:
        """A row per step; `before.<name>` of the first has the figures of held-out pairs before any step.

        Raises:
            ComputationError: a loss is not finite.
            Interrupted: a stop signal came; the state was saved.
        """
        params = self.params
        weights = nn.ParameterList([self.reader.weights[name] for name in sorted(self.reader.weights)])
        groups = [{"params": list(weights), "multiplier": params.learning_rate}]
        optimizer = torch.optim.AdamW(groups, weight_decay=params.weight_decay)
        return take_steps(
            weights,
            optimizer,
            lambda step: self._step(weights, optimizer, step),
            params.steps,
            rate=lambda step: learning_rate(step, params.steps, params.warmup_steps + 1, 1.0, falls_from=0),
            checkpoints=self.checkpoints,
            title="adapt_llm",
        )

    def _step(self, weights: nn.ParameterList, optimizer: torch.optim.Optimizer, step: int) -> dict[str, float]:
        before = {f"before.{name}": value for name, value in self._measured().items()} if step == 0 else {}
        optimizer.zero_grad()
        with memory_advice("set adapt_llm.micro_batch_size to less; the loss stays the same"):
            loss = self.backward(self.pairs.batch(step))
        if not math.isfinite(loss):
            raise ComputationError(
                f"adapt_llm: the loss of step {step + 1} is not finite: lower adapt_llm.learning_rate"
            )
        norm = torch.nn.utils.clip_grad_norm_(weights.parameters(), _CLIPPED)
        optimizer.step()
        row = {"step": step + 1, "loss": loss, "gradient": float(norm), **before}
        every = max(_APART, self.params.steps // _MEASURED)
        if (step + 1) % every == 0 or step + 1 == self.params.steps:
            row |= {f"held_out.{name}": value for name, value in self._measured().items()}
        return row

    def backward(self, pairs: Sequence[Pair]) -> float:
        """Add the gradients of a batch's loss to the adapters; returns the loss."""
        size = self.params.micro_batch_size or len(pairs)
        pieces = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        model = self.reader.model
        read = in_pieces(
            lambda piece: dict(zip("ab", self._read(piece), strict=True)), pieces, model, model.device.type
        )
        loss = caption_contrast(read.features["a"], read.features["b"], said_again(pairs), self.params.temperature)
        loss.backward()
        read.backward(1)
        return float(loss.detach())

    def _read(self, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """Vectors [N, D] of the first and of the second captions."""
        t = self.reader.read([text for pair in pairs for text in pair])
        return t[0::2], t[1::2]

    @torch.no_grad()
    def _measured(self) -> dict[str, float]:
        pairs, size = self.pairs.test, self.params.micro_batch_size or self.params.batch_size
        read = [self._read(pairs[start : start + size]) for start in range(0, len(pairs), size)]
        a, b = (torch.cat(side) for side in zip(*read, strict=True))
        return asdict(held_out(a, b, said_again(pairs), self.params.temperature))


def ends(rows: Metrics) -> tuple[HeldOut, HeldOut]:
    """The figures of held-out pairs before and after a training."""
    first, last = (
        HeldOut(row[f"{when}.loss"], row[f"{when}.recall"])
        for row, when in ((rows[0], "before"), (rows[-1], "held_out"))
    )
    return first, last
