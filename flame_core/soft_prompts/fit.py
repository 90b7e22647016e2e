"""Training of prompts, a step at a time, so that a killed one continues at its last state and ends with the same bytes.

Which captions a step has, and its dropout, follow from the seed and the step's number only. States (`step_states`) are
written by the clock, which changes no result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from flame_core.errors import ComputationError
from flame_core.params import PromptsParams
from flame_core.processes.gpu import memory_advice
from flame_core.soft_prompts.autoencoder import Autoencoder
from flame_core.soft_prompts.frozen_llm import FrozenLLM
from flame_core.soft_prompts.prompt_head import PromptHeadConfig
from flame_core.soft_prompts.reader import CaptionIds, caption_ids, caption_loss
from flame_core.soft_prompts.sentences import Sentences, standard
from flame_core.step_states import Row, StepStates, rate_share
from flame_core.work import WorkCache

_MEASURED = 10  # how often the held-out loss is measured
_STANDARD = 65_536  # captions whose vectors give mean and deviation
_POOL = 16  # batches whose captions are sorted by length
_CLIPPED = 1.0  # norm of the gradient
_STEPS_PER_SEED = 1_000_003  # a prime above all numbers of steps, so that no two seeds share the draw of a step


@dataclass(frozen=True)
class Fit:
    """A training; `run` does what the cache does not hold.

    Attributes:
        params: of the section.
        config: of the prompt head.
        llm: frozen, on the device on which all runs.
        sentences: to learn, and held out.
        cache: of the stage.
        inputs: all that the result follows from.
        seconds: between two states.
    """

    params: PromptsParams
    config: PromptHeadConfig
    llm: FrozenLLM
    sentences: Sentences
    cache: WorkCache
    inputs: Mapping[str, Any]
    seconds: float

    def run(self) -> tuple[Autoencoder, list[Row]]:
        """The trained autoencoder in evaluation mode, and its metrics.

        Raises:
            ComputationError: a loss is not finite.
        """
        model = self._initial()
        optimizer = torch.optim.AdamW(self._groups(model), weight_decay=self.params.weight_decay)
        states = StepStates(self.cache, self.inputs, self.params.steps)
        with memory_advice(f"set prompts.batch_size (now {self.params.batch_size}) to less"):
            rows = states.train(
                model,
                optimizer,
                lambda step: self._step(model, optimizer, step),
                title="prompts",
                shown="lm",
                seconds=self.seconds,
            )
        return model.eval(), rows

    def inputs_of(self, numbers: list[int]) -> tuple[Tensor | None, CaptionIds]:
        """Stored vectors, if they are read, and ids of captions by their numbers."""
        device = self.llm.device
        captions = caption_ids(self.llm, self.sentences.texts_of(numbers), self.params.max_tokens).to(device)
        vectors = None if self.params.encoder else self.sentences.vectors(numbers).to(device)
        return vectors, captions

    def _initial(self) -> Autoencoder:
        with seeded(self.params.seed):
            model = Autoencoder(self.params, self.config, self.llm.vocabulary)
        if self.params.encoder is None:
            model.head.standardise(standard(self.sentences, _STANDARD, self.params.seed))
        return model.to(self.llm.device)

    def _groups(self, model: Autoencoder) -> list[dict[str, Any]]:
        """Weights by their learning rate."""
        encoder = list(model.encoder.parameters()) if model.encoder else []
        of_encoder = set(map(id, encoder))
        rest = [weight for weight in model.parameters() if id(weight) not in of_encoder]
        groups = [{"params": rest, "peak": self.params.learning_rate}]
        return groups + (
            [{"params": encoder, "peak": self.params.encoder.learning_rate}] if self.params.encoder else []
        )

    def _step(self, model: Autoencoder, optimizer: torch.optim.Optimizer, step: int) -> Row:
        part = rate_share(step, self.params.steps, self.params.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = part * group["peak"]
        with seeded(self.params.seed * _STEPS_PER_SEED + step + 1):
            terms = model.train().losses(self.llm, *self.inputs_of(self._batch(step)))
        if not torch.isfinite(terms["loss"]):
            raise ComputationError(f"prompts: the loss of step {step + 1} is not finite: lower prompts.learning_rate")
        optimizer.zero_grad()
        terms["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIPPED)
        optimizer.step()
        row = {"step": step + 1, **{name: float(value.detach()) for name, value in terms.items()}}
        row |= {"gradient": float(norm), "learning_rate": part * self.params.learning_rate}
        if (step + 1) % max(1, self.params.steps // _MEASURED) == 0 or step + 1 == self.params.steps:
            row["held_out"] = self._held_out(model)
        return row

    def _batch(self, step: int) -> list[int]:
        """Numbers of the captions of a step."""
        per_epoch = len(self.sentences.learned) // self.params.batch_size
        epoch, place = divmod(step, per_epoch)
        if epoch not in self._epochs:
            self._epochs.clear()
            self._epochs[epoch] = self._epoch(epoch, per_epoch)
        return self._epochs[epoch][place]

    def _epoch(self, epoch: int, batches: int) -> list[list[int]]:
        """The batches of an epoch; the last captions that fill none are left out.

        A batch has captions of about one length, so that few pads are computed.
        """
        learned, size = self.sentences.learned, self.params.batch_size
        draw = torch.Generator().manual_seed(self.params.seed * _STEPS_PER_SEED + epoch)
        order = [learned[i] for i in torch.randperm(len(learned), generator=draw).tolist()][: batches * size]
        pool = _POOL * size
        for start in range(0, len(order), pool):
            order[start : start + pool] = sorted(
                order[start : start + pool], key=lambda number: len(self.sentences.texts[number])
            )
        own = [order[start : start + size] for start in range(0, len(order), size)]
        return [own[i] for i in torch.randperm(len(own), generator=draw).tolist()]

    @cached_property
    def _epochs(self) -> dict[int, list[list[int]]]:
        return {}

    @torch.no_grad()
    def _held_out(self, model: Autoencoder) -> float:
        """L_lm of the first held-out captions."""
        vectors, captions = self.inputs_of(self.sentences.tested[: self.params.batch_size])
        return float(caption_loss(self.llm, model.eval().prompts(vectors, captions), captions))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of the CPU and of the GPU that follow from the seed; the state before is restored."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
