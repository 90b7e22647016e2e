"""Trains a codebook with a captioner: L = L_LM + L_VQ. Interrupted and resumed, it ends with the same bytes on a CPU.

A batch depends only on the seed and the step. A tenth of the pictures is held out; how much likelier their captions
are behind their own codes than behind those of another picture tells whether the codes say what captions say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from flame_core.errors import ComputationError
from flame_core.params import VqParams
from flame_core.stepping.checkpoint import Metrics
from flame_core.stepping.learning_rate import learning_rate
from flame_core.stepping.stepwise import take_steps
from flame_core.vq.decoder import PAD, CaptionDecoder, Vocabulary, padded
from flame_core.vq.quantizer import VectorQuantizer

_WARMUP = 0.05  # share of the steps
_DECAY = 0.01  # of the decoder's weights


@dataclass(frozen=True)
class Described:
    """Pictures whose tokens are quantised: tokens [N, L, E] of any length, and the captions of each."""

    tokens: np.ndarray
    captions: Sequence[Sequence[str]]

    def __len__(self) -> int:
        return len(self.captions)

    def part(self, rows: np.ndarray) -> Described:
        """Some of the pictures."""
        return Described(self.tokens[rows], [self.captions[int(row)] for row in rows])


class CodeCaptioner(nn.Module):
    """The quantiser, and the decoder that reads its codes."""

    def __init__(self, codes: np.ndarray, vocabulary: Vocabulary, params: VqParams) -> None:
        """Begin with codes [K, E]."""
        super().__init__()
        self.quantizer = VectorQuantizer(torch.from_numpy(codes.astype(np.float32)))
        self.decoder = CaptionDecoder(codes.shape[1], len(vocabulary), params.width, params.layers, params.max_words)
        self.vocabulary, self._most = vocabulary, params.max_words

    def ids(self, texts: Sequence[str]) -> Tensor:
        """Numbers of words [B, T]."""
        return padded([self.vocabulary.ids(text, self._most) for text in texts])


def fit(
    data: Described,
    first: np.ndarray,
    params: VqParams,
    seed: int,
    device: torch.device,
    checkpoints: Path,
    after_step: Callable[[int], None] = lambda step: None,
) -> tuple[CodeCaptioner, Metrics]:
    """A trained captioner in evaluation mode, or resume; begins with the codes `first` [K, E].

    Returns:
        the captioner, and per step `step`, `loss` (L_LM, nats per word), `codebook`, `commitment`, `restarted` and
        `learning_rate`.

    Raises:
        ComputationError: the loss is not finite; names the step.
        Interrupted: a stop signal came; the state was saved.
    """
    torch.manual_seed(seed)
    vocabulary = Vocabulary.of((text for own in data.captions for text in own), params.words)
    model = CodeCaptioner(first, vocabulary, params).to(device).train()
    optimizer = torch.optim.AdamW(
        [
            {"params": list(model.quantizer.parameters()), "weight_decay": 0.0, "multiplier": 1.0},
            {"params": list(model.decoder.parameters()), "weight_decay": _DECAY, "multiplier": 1.0},
        ],
        lr=params.learning_rate,
    )
    metrics = take_steps(
        model,
        optimizer,
        lambda step: _step(model, optimizer, data, params, seed, step),
        params.steps,
        rate=lambda step: learning_rate(step, params.steps, int(_WARMUP * params.steps), params.learning_rate),
        checkpoints=checkpoints,
        title="codebook",
        after_step=after_step,
    )
    return model.eval(), metrics


def _step(
    model: CodeCaptioner, optimizer: torch.optim.Optimizer, data: Described, params: VqParams, seed: int, step: int
) -> dict[str, float]:
    rows, texts = batch(data, params.batch_size, seed, step)
    device = model.quantizer.codes.device
    tokens = torch.from_numpy(data.tokens[rows]).to(device, torch.float32)
    found = model.quantizer(tokens)
    loss = model.decoder.loss(found.passed, model.ids(texts).to(device))
    total = loss + found.terms.loss(params.beta, params.form)
    if not math.isfinite(float(total.detach())):
        raise ComputationError(
            f"codes.vq: the loss of step {step} is not finite: lower codes.vq.learning_rate ({params.learning_rate:g})"
        )
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    optimizer.step()
    moved = model.quantizer.restart(tokens, found)
    for moment in ("exp_avg", "exp_avg_sq"):  # those of a code that is elsewhere now
        optimizer.state[model.quantizer.codes][moment][moved] = 0.0
    values = {"loss": loss, "codebook": found.terms.codebook, "commitment": found.terms.commitment}
    figures = {name: float(value.detach()) for name, value in values.items()}
    return {"step": step, **figures, "restarted": float(len(moved))}


def batch(data: Described, size: int, seed: int, step: int) -> tuple[np.ndarray, list[str]]:
    """Pictures of a step and a caption of each: a seeded order per epoch; those that fill no batch are left out."""
    size = min(size, len(data))
    epoch, place = divmod(step, len(data) // size)
    order, chosen = _drawn(len(data), seed, epoch)
    rows = order[place * size : (place + 1) * size]
    own = [data.captions[int(row)] for row in rows]
    return rows, [texts[int(share * len(texts))] for texts, share in zip(own, chosen[rows], strict=True)]


@lru_cache(maxsize=1)
def _drawn(count: int, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The order of `count` pictures in an epoch, and by picture a number that chooses its caption; the last is kept."""
    draw = np.random.default_rng([seed, epoch])
    return draw.permutation(count), draw.random(count)


@torch.inference_mode()
def held_out_losses(model: CodeCaptioner, data: Described, size: int) -> tuple[float, float]:
    """Nats per word of each picture's first caption behind its own codes, and behind those of the next picture."""
    device, totals, words = model.quantizer.codes.device, [0.0, 0.0], 0
    for start in range(0, len(data), size):
        rows = np.arange(start, min(start + size, len(data)))
        ids = model.ids([data.captions[int(row)][0] for row in rows]).to(device)
        for number, own in enumerate((rows, (rows + 1) % len(data))):
            codes = model.quantizer(torch.from_numpy(data.tokens[own]).to(device, torch.float32)).passed
            totals[number] += float(model.decoder.losses(codes, ids).double().sum())
        words += int((ids[:, 1:] != PAD).sum())
    return totals[0] / words, totals[1] / words
