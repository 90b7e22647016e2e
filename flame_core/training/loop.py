"""The training loop: batches of pictures and cached texts, AdamW, checkpoints, and a clean stop on a signal.

The result depends only on the inputs: if interrupted at any step and resumed, it ends with the same weights, on a CPU
bit for bit, also with several ranks. The LLM is never loaded.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from flame_core.errors import ComputationError, InputError, Interrupted, ParamsError
from flame_core.objectives.batch import Batch, Moment
from flame_core.params import TrainParams
from flame_core.params.auto import Schedule
from flame_core.processes.gpu import free_memory
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.processes.stop_request import stop_requested
from flame_core.reporting import progress
from flame_core.settings import settings
from flame_core.stepping import checkpoint
from flame_core.stepping.checkpoint import Metrics
from flame_core.stepping.learning_rate import learning_rate, set_learning_rate
from flame_core.stepping.random_state import random_state, set_random_state
from flame_core.training.assembly import Assembly, assemble
from flame_core.training.head_first import HeldBackbone, held_steps
from flame_core.training.linked_folders import UNLINKED, LinkedFolders
from flame_core.training.loader import EpochOrder, TrainingSamples, create_loader
from flame_core.training.memory import fitted_training
from flame_core.training.prefetch import batches_on
from flame_core.training.sampling import Draws
from flame_core.training.step import Step
from flame_core.training.told import Read, Told
from flame_core.training.utilisation import Utilisation, measured_peak
from flame_core.vision.nvjpeg import require_gpu
from flame_core.vision.tower import ImageTower


class Trained(NamedTuple):
    """The result of a training; `metrics` has one row per step."""

    tower: ImageTower
    metrics: Metrics
    text_tower: nn.Module | None  # if the recipe trains one


def train(
    samples: TrainingSamples,
    params: TrainParams,
    checkpoints: Path,
    ranks: Ranks = ALONE,
    on_step: Callable[[dict[str, float]], None] = lambda row: None,
    linked: LinkedFolders = UNLINKED,
    draws: Draws | None = None,
) -> Trained:
    """Train a recipe's towers; every rank calls it and gets the same result.

    Args:
        samples: made for the same recipe.
        params: the recipe.
        checkpoints: the folder to save to and to resume from.
        ranks: this process among those that train.
        on_step: called with the metrics after each step, on a GPU also with those of `Utilisation`.
        linked: what the recipe is linked to, besides the sidecars of the samples.
        draws: how an epoch's samples are drawn (default: each once).

    Returns:
        The towers, and per step: step, epoch, loss, learning_rate, loss/<share> for each share if there are several,
        and the objective's scalars.

    Raises:
        ComputationError: the loss is not finite; names the step and the batch's keys.
        Interrupted: a stop signal came to any rank; the state was saved.
        InputError: fewer than two samples, or a sidecar that a term cannot use.
        ParamsError: the batch cannot be divided evenly among the ranks, pictures are to be decoded on a missing GPU, or
            the tower cannot inherit from that model.
        ResourceError: the training does not fit the GPU's memory; says how much is missing and which setting helps.
    """
    device, linked = settings().torch_device(), replace(linked, sidecars=samples.sidecar_folders)
    _require_trainable(params, len(samples), ranks, device)
    torch.set_num_threads(params.cpu_threads)
    torch.use_deterministic_algorithms(device == "cpu")
    meter: Utilisation | None = None
    if device == "cuda":
        params, meter = _fitted(params, samples, ranks, linked)
    schedule = params.schedule(len(samples))
    batch_size = schedule.batch_size
    assembly = assemble(params, samples.texts, samples.facets, batch_size, len(samples), linked)
    run = _Run(assembly.to(device), params, schedule, checkpoints, ranks, device)
    order = EpochOrder(len(samples), batch_size, schedule.epochs, params.seed, run.step, ranks, draws)
    loader = create_loader(samples, order, settings().decoding_processes(ranks.world), pin_memory=device == "cuda")

    def account(told: Told) -> Read:
        read = told.read()
        if not math.isfinite(read.loss):
            raise _not_finite(read, told.at.step, told.keys, params)
        run.metrics.append(_row(told, read, phased=assembly.objective.phased))
        speed = meter.after_step() if meter else {}
        on_step(run.metrics[-1] | speed)
        shown = {name: f"{value:.3g}" for name, value in speed.items()}
        bar.advance(batch_size, loss=read.loss, lr=told.rate, **shown)
        return read

    total = order.total_steps
    unread: deque[Told] = deque()
    behind = 1 if device == "cuda" else 0  # steps that a GPU has been asked for before one is read
    last_save = time.monotonic()
    with stop_requested() as stopped, progress("train", total * batch_size, "images", run.step * batch_size) as bar:
        for batch in batches_on(device, loader):
            at = Moment(run.step, total, order.steps_per_epoch)
            rate, shares = run.advance(batch, at)
            due = ranks.first and time.monotonic() - last_save >= settings().checkpoint_seconds
            flags = {"stop": bool(stopped), "save": due}
            unread.append(Told(at, rate, batch.keys, shares, assembly.objective.scalars(), ranks, **flags))
            if run.step < total and len(unread) <= behind:
                continue
            read = account(unread.popleft())
            if run.step == total or read.stop or read.save:  # what is saved or given back holds all steps
                while unread:
                    account(unread.popleft())
            if run.step < total and (read.stop or read.save):
                run.save()
                last_save = time.monotonic()
            if run.step < total and read.stop:
                raise Interrupted(f"stopped after step {run.step} of {total}; run again to resume")
    return Trained(assembly.tower, run.metrics, assembly.text_tower)


class _Run:
    """What a training changes: weights, the optimizer's state, metrics; as they were saved, if they were.

    Attributes:
        step: how many steps were asked for, also by earlier runs.
        metrics: a row for each of them that was read.
    """

    def __init__(
        self,
        assembly: Assembly,
        params: TrainParams,
        schedule: Schedule,
        checkpoints: Path,
        ranks: Ranks,
        device: str,
    ) -> None:
        self._assembly, self._params, self._schedule = assembly, params, schedule
        self._checkpoints, self._ranks, self._device = checkpoints, ranks, device
        if ranks.rank:
            torch.manual_seed(params.seed + ranks.rank)  # dropout and stochastic depth differ between ranks
        saved = checkpoint.load(checkpoints, ranks)
        self.metrics: Metrics = saved.metrics if saved else []
        self.step = len(self.metrics)
        if saved:
            assembly.load_state(saved.model)
            set_random_state(saved.random, torch.device(device))
        self._optimizer = assembly.optimizer(params)
        if saved:
            self._optimizer.load_state_dict(saved.optimizer)
        self._backbone = HeldBackbone(assembly.tower.backbone, held_steps(params, schedule))
        self._backbone.before(self.step)
        self._train_on = self._new_step()

    def advance(self, batch: Batch, at: Moment) -> tuple[float, dict[str, Tensor]]:
        """Train on a batch: the learning rate, and this rank's shares of the loss by name."""
        pruned = self._assembly.prune(at)
        if pruned:
            self._optimizer = self._assembly.optimizer(self._params)
        if self._backbone.before(at.step) or pruned:
            self._train_on = self._new_step()
        peak = self._params.optimizer.learning_rate
        rate = learning_rate(at.step, at.steps, self._schedule.warmup_steps, peak)
        set_learning_rate(self._optimizer, rate)
        shares = self._train_on(batch, at)
        self.step += 1
        return rate, shares

    def save(self) -> None:
        """Write a checkpoint, from which the next training of this recipe goes on."""
        random = random_state(torch.device(self._device))
        state = (self._assembly.state(), self._optimizer.state_dict(), random)
        kept = checkpoint.Checkpoint(self.step, *state, self.metrics)
        checkpoint.save(self._checkpoints, kept, settings().checkpoints_kept, self._ranks)

    def _new_step(self) -> Step:
        return Step(self._assembly, self._optimizer, self._params, self._ranks, self._device)


def _fitted(
    params: TrainParams, samples: TrainingSamples, ranks: Ranks, linked: LinkedFolders
) -> tuple[TrainParams, Utilisation]:
    """The params with which the training fits the GPUs' memory, and what measures how well it uses one."""
    fitted, cost = fitted_training(params, samples, ranks.world, ranks.least(free_memory()), linked)
    peak = measured_peak("cuda", torch.bfloat16 if params.precision == "bfloat16" else torch.float32)
    return fitted, Utilisation(cost.useful_step_flops / ranks.world, peak)


def _require_trainable(params: TrainParams, samples: int, ranks: Ranks, device: str) -> None:
    """Refuse so few samples, a batch that the ranks cannot share, and decoding on a GPU that is not there."""
    if samples < 2:
        raise InputError(f"training needs at least 2 samples, and the training split holds {samples}")
    require_gpu(params.decoder, device)
    batch_size = params.schedule(samples).batch_size
    if batch_size % ranks.world:
        raise ParamsError(
            f"{batch_size} cannot be divided evenly among {ranks.world} processes (FLAME_TRAIN_PROCESSES)",
            key="train.batch_size",
        )


def _not_finite(read: Read, step: int, keys: Sequence[str], params: TrainParams) -> ComputationError:
    """What went wrong: weights that grew too fast, or, in the first step, values that no weights have changed yet."""
    rate = params.optimizer.learning_rate
    wrong = [name for name, share in read.losses.items() if not math.isfinite(share)]
    of = f" (of {', '.join(wrong)})" if 0 < len(wrong) < len(read.losses) else ""
    main = any(name.split("/")[0] == params.objective.name for name in wrong)
    values = "train.objective" if main or not of else "train.terms"
    advice = f"lower train.optimizer.learning_rate ({rate:g})" if step else f"correct the values of {values}"
    return ComputationError(
        f"the loss of step {step} is {read.loss}{of}: {advice}, or look at the samples; the batch's keys begin with "
        f"{', '.join(keys[:8])}"
    )


def _row(told: Told, read: Read, *, phased: bool) -> dict[str, float]:
    """The metrics of a step; a loss that is the only one is not told twice, unless terms come and go (`phased`)."""
    shown = len(read.losses) > 1 or phased
    return {
        "step": told.at.step,
        "epoch": told.at.epoch,
        "loss": read.loss,
        "learning_rate": told.rate,
        **({f"loss/{name}": share for name, share in read.losses.items()} if shown else {}),
        **read.scalars,
    }
