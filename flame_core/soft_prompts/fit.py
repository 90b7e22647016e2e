"""Training of prompts, a step at a time, so that a killed one continues at its last state and ends with the same bytes.

Which captions a step has, and its dropout, follow from the seed and the step's number only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
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
from flame_core.stepping.checkpoint import Metrics
from flame_core.stepping.learning_rate import learning_rate
from flame_core.stepping.stepwise import take_steps
from flame_core.stepping.weight_decay import parameter_groups

_MEASURED = 10  # how often the held-out loss is measured
_STANDARD = 65_536  # captions whose vectors give mean and deviation
_POOL = 16  # batches whose captions are sorted by length
_CLIPPED = 1.0  # norm of the gradient
_STEPS_PER_SEED = 1_000_003  # a prime above all numbers of steps, so that no two seeds share the draw of a step


@dataclass(frozen=True)
class Fit:
    """A training; `run` takes the steps that its checkpoints do not hold.

    Attributes:
        params: of the section.
        config: of the prompt head.
        llm: frozen, on the device on which all runs.
        sentences: to learn, and held out.
    """

    params: PromptsParams
    config: PromptHeadConfig
    llm: FrozenLLM
    sentences: Sentences

    def run(self, checkpoints: Path) -> tuple[Autoencoder, Metrics]:
        """The trained autoencoder in evaluation mode, and its metrics by step.

        Raises:
            ComputationError: a loss is not finite.
            Interrupted: a stop signal came; the state was saved.
        """
        model, params = self.untrained(), self.params
        if params.encoder is None:
            model.head.standardise(standard(self.sentences, _STANDARD, params.seed))
        model.to(self.llm.device)
        optimizer = torch.optim.AdamW(self._groups(model))
        with memory_advice(f"set prompts.batch_size (now {params.batch_size}) to less"):
            metrics = take_steps(
                model,
                optimizer,
                lambda step: self._step(model, optimizer, step),
                params.steps,
                rate=lambda step: learning_rate(step, params.steps, params.warmup_steps + 1, 1.0, falls_from=0),
                checkpoints=checkpoints,
                title="prompts",
                shown="lm",
            )
        return model.eval(), metrics

    def untrained(self) -> Autoencoder:
        """An autoencoder with its first weights, on the CPU."""
        with seeded(self.params.seed):
            return Autoencoder(self.params, self.config, self.llm.vocabulary)

    def inputs_of(self, numbers: list[int]) -> tuple[Tensor | None, CaptionIds]:
        """Stored vectors, if they are read, and ids of captions by their numbers."""
        device = self.llm.device
        captions = caption_ids(self.llm, self.sentences.texts_of(numbers), self.params.max_tokens).to(device)
        vectors = None if self.params.encoder else self.sentences.vectors(numbers).to(device)
        return vectors, captions

    def _groups(self, model: Autoencoder) -> list[dict[str, Any]]:
        """Weights by their highest learning rate; of these only matrices decay, and not the temperature or a norm."""
        encoder = list(model.encoder.parameters()) if model.encoder else []
        of_encoder = set(map(id, encoder))
        rest = [weight for weight in model.parameters() if id(weight) not in of_encoder]
        groups = parameter_groups(rest, self.params.weight_decay, self.params.learning_rate)
        if self.params.encoder:
            groups += parameter_groups(encoder, self.params.weight_decay, self.params.encoder.learning_rate)
        return groups

    def _step(self, model: Autoencoder, optimizer: torch.optim.Optimizer, step: int) -> dict[str, float]:
        with seeded(self.params.seed * _STEPS_PER_SEED + step + 1):
            terms = model.train().losses(self.llm, *self.inputs_of(self._batch(step)))
        if not torch.isfinite(terms["loss"]):
            raise ComputationError(f"prompts: the loss of step {step + 1} is not finite: lower prompts.learning_rate")
        optimizer.zero_grad()
        terms["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIPPED)
        optimizer.step()
        row = {"step": step + 1, **{name: float(value.detach()) for name, value in terms.items()}}
        row["gradient"] = float(norm)
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
