"""The cost of training a recipe: FLOPs, and memory per process, by the parts of a step.

Nothing here depends on the method. The recipe's own towers and objective are assembled on the CPU and run on random
pictures and texts, and the runs are counted (`counting`).

- A tower's cost grows with its items: views of pictures, or captions. A run of one item and a run of two give the cost
  per item and the fixed cost. Backward costs as much as two forwards.
- The objective sees the features of the whole batch, so its cost is a polynomial of degree two in the number of
  pictures. Runs of two, three and four pictures give its coefficients.
- What the terms do before the towers run, such as the forward pass of a teacher or of a moving average, comes first: it
  may choose the patches that the tower sees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb

import torch
from torch import Tensor, nn

from flame_core.errors import ParamsError
from flame_core.objectives import recipe_needs
from flame_core.objectives.batch import Batch, Features, Moment
from flame_core.params import LoraParams, TrainParams
from flame_core.processes.ranks import ALONE
from flame_core.text.jobs import facet_count
from flame_core.training.adapted_cost import ReadLLM, adapted_cost
from flame_core.training.assembly import Assembly, assemble
from flame_core.training.cost_figures import ObjectiveCost, TowerCost, TrainingCost
from flame_core.training.counting import Counted, Quadratic, counted
from flame_core.training.linked_folders import UNLINKED, LinkedFolders
from flame_core.training.made_batch import MadeTexts, made_batch

_ADAM_BYTES = 16  # a weight, its gradient and two moments in float32
PICTURES = 4  # the largest number of pictures in a run


def training_cost(
    params: TrainParams,
    hidden: int,
    slots: Sequence[str],
    samples: int,
    processes: int = 1,
    vocabulary: int = 1,
    extra: Mapping[str, Tensor] | None = None,
    linked: LinkedFolders = UNLINKED,
    llm: ReadLLM | None = None,
) -> TrainingCost:
    """The cost of a recipe on `samples` pictures, for texts of `hidden` dimensions, on `processes` processes.

    Args:
        params: the recipe.
        hidden: D, dimensions of the texts' space.
        slots: names of a picture's texts that are drawn from.
        samples: number of training pictures.
        processes: number of processes that share a batch.
        vocabulary: number of token ids of a text tower; its captions are counted at their full length.
        extra: values of `PICTURES` samples by sidecar.
        linked: what the recipe is linked to, as far as it is there.
        llm: what a recipe with `lora` reads captions with.

    Raises:
        ParamsError: the recipe reads sidecars, or an LLM, that are not given.
    """
    if (params.lora is None) != (llm is None):
        raise ParamsError("what a recipe with `lora` costs follows from the LLM that reads its captions: name it")
    if missing := [name for name in recipe_needs(params).sidecars if name not in (extra or {})]:
        raise ParamsError(
            f"what the recipe costs follows from the values that it reads, {', '.join(missing)}: store them first"
        )
    drawn = min(params.texts_per_image, len(slots))
    params = params.model_copy(update={"texts_per_image": drawn})
    schedule = params.schedule(samples)
    batch = schedule.batch_size
    own = batch // processes
    texts, needs, size = MadeTexts(params, hidden, vocabulary), recipe_needs(params), params.model.image_size
    with torch.random.fork_rng(devices=[]):
        assembly = assemble(params, texts, facet_count(slots), batch, samples, linked)
        at = Moment(assembly.objective.busiest(schedule.steps), schedule.steps, schedule.steps_per_epoch)
        made = made_batch(params, texts, PICTURES, assembly.tower.backbone.num_features).with_extra(**(extra or {}))
        prepared = _prepared(params, assembly, made, at)
        run = _Runs(params, assembly, prepared.result)
        image, features = run.image_tower(needs.views, own)
        captions = different_captions(slots, drawn)
        text = run.text_tower(captions, own)
        if params.lora is not None and llm is not None:
            text = _adapted(params.lora, llm, features["z"].shape[-1], params.precision, captions, own)
        objective = run.objective(features, hidden, at, batch, own)
        objective = replace(objective, before_flops=prepared.flops / PICTURES * batch)
    ids = llm.tokens if llm else params.text_tower.max_tokens if params.text_tower else None
    text_bytes = 2 * hidden if ids is None else round(8 * ids)
    numbers = needs.views * 3 * size**2 + 3 * round(needs.around * size) ** 2  # of a picture's views
    cost = TrainingCost(
        image=image,
        text=text,
        objective=objective,
        input_bytes=own * (4 * numbers + drawn * text_bytes),
        steps=at.steps,
        batch_size=batch,
        texts=drawn,
        chosen={name: getattr(schedule, name) for name in params.automatic},
        draws=draws_at_random(assembly.towers()),
    )
    return cost.with_micro_batch(params.micro_batch_size or own)


def different_captions(slots: Sequence[str], drawn: int) -> float:
    """The average number of captions that `drawn` texts of a picture belong to, since a caption gives several texts."""
    of_caption = Counter((name.partition("/")[0], name.partition("#")[2]) for name in slots)
    ways = comb(len(slots), drawn)
    return sum(1 - comb(len(slots) - own, drawn) / ways for own in of_caption.values())


def _adapted(lora: LoraParams, llm: ReadLLM, words: int, precision: str, captions: float, own: int) -> TowerCost:
    """The cost of the LLM with adapters, for so many captions per picture and `own` pictures per step."""
    cost = adapted_cost(lora, llm, words, precision)
    return TowerCost(
        weights=cost.weights,
        forward_flops=cost.forward_flops,
        activation_bytes=cost.activation_bytes,
        fixed_bytes=cost.weights * _ADAM_BYTES + cost.frozen_bytes,
        items=captions,
        own=round(own * captions),
        held=round(own * captions),
        recomputes=lora.checkpoint_activations,
        backwards=1.0,
    )


def _prepared(params: TrainParams, assembly: Assembly, made: Batch, at: Moment) -> Counted[Batch]:
    """A batch as the towers get it, and what it cost to prepare it."""
    with _autocast(params):
        return counted(lambda: assembly.objective.prepare(made, assembly.tower, at, ALONE))


@dataclass(frozen=True)
class _Runs:
    """Parts of an assembled training, each run on a prepared batch and counted."""

    params: TrainParams
    assembly: Assembly
    made: Batch

    def image_tower(self, views: int, own: int) -> tuple[TowerCost, Features]:
        """The image tower's cost, and the features of one view."""
        tower, pictures = self.assembly.tower, self.made.pictures.flatten(0, 1)
        keep = None if self.made.keep is None else self.made.keep.flatten(0, 1)
        reads = tuple(sorted(recipe_needs(self.params).reads))
        recomputes = self.params.model.checkpoint_activations

        def run(inputs: Tensor) -> Features:
            return tower(inputs, reads, None if keep is None else keep[: len(inputs)])

        return self._tower(tower, pictures, run, views, own, recomputes)

    def text_tower(self, captions: float, own: int) -> TowerCost | None:
        """The text tower's cost, if there is one."""
        if (tower := self.assembly.text_tower) is None:
            return None
        ids = self.made.texts.flatten(0, 1)
        return self._tower(tower, ids, lambda inputs: {"t": tower(inputs)}, captions, own)[0]

    def _tower(
        self,
        tower: nn.Module,
        inputs: Tensor,
        run: Callable[[Tensor], Features],
        items: float,
        own: int,
        recomputes: bool = False,
    ) -> tuple[TowerCost, Features]:
        there = [*tower.parameters(), inputs]  # whether it is kept or not
        with _autocast(self.params):
            one, two = (counted(lambda n=n: run(inputs[:n]), there) for n in (1, 2))
        trained, others = _sizes(tower)
        cost = TowerCost(
            weights=trained,
            forward_flops=one.flops,
            activation_bytes=two.kept_bytes - one.kept_bytes,
            fixed_bytes=trained * _ADAM_BYTES + others + max(0, 2 * one.kept_bytes - two.kept_bytes),
            items=items,
            own=round(own * items),
            held=round(own * items),
            recomputes=recomputes,
        )
        return cost, {name: value.detach() for name, value in one.result.items()}

    def objective(self, of_one: Features, hidden: int, at: Moment, batch_size: int, own: int) -> ObjectiveCost:
        """The objective's cost if a process has `own` pictures of a batch; `of_one` are the features of one view."""
        objective, (b, views) = self.assembly.objective, self.made.pictures.shape[:2]
        features = {name: torch.randn(b, views, *value.shape[1:]) for name, value in of_one.items()}
        of_words = self.params.lora is not None
        dims = of_one["z"].shape[-1] if of_words else hidden
        features["t"] = torch.randn(b, self.params.texts_per_image, dims)
        trained_texts = of_words or self.assembly.text_tower is not None

        def loss(n: int) -> Tensor:
            own = {name: value[:n].clone() for name, value in features.items()}
            leaves = {name: value.requires_grad_(name != "t" or trained_texts) for name, value in own.items()}
            return torch.stack(list(objective(leaves, self.made[:n], ALONE).values())).sum()

        flops, kept = [], []
        for n in range(2, PICTURES + 1):
            forward = counted(lambda n=n: loss(n), [*objective.parameters(), *objective.buffers()])
            after = counted(lambda n=n, forward=forward: self._end_of_step(forward.result, features, self.made[:n], at))
            flops.append(forward.flops + after.flops)
            kept.append(forward.kept_bytes)
        arithmetic, memory = Quadratic.through(*flops), Quadratic.through(*kept)
        trained, others = _sizes(objective)
        kept_bytes = memory.constant + memory.linear * own + memory.square * own * batch_size
        return ObjectiveCost(
            weights=trained,
            flops=arithmetic.constant + arithmetic.linear * batch_size + arithmetic.square * batch_size**2,
            memory=trained * _ADAM_BYTES + others + round(max(0.0, kept_bytes)),
        )

    def _end_of_step(self, loss: Tensor, features: Features, batch: Batch, at: Moment) -> None:
        loss.backward()
        own = {name: value[: len(batch)] for name, value in features.items()}
        self.assembly.objective.after_step(self.assembly.tower, own, batch, at, ALONE)


def draws_at_random(module: nn.Module) -> bool:
    """Whether dropout or stochastic depth of torch or timm draws when the module runs in training."""
    shares = (getattr(part, name, 0) for part in module.modules() for name in ("p", "drop_prob", "prob"))
    return any(isinstance(share, float) and share > 0 for share in shares)


def _autocast(params: TrainParams) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=params.precision == "bfloat16")


def _sizes(module: nn.Module) -> tuple[int, int]:
    """The number of trained weights, and the bytes of all other state."""
    trained = {id(weight): weight.numel() for weight in module.parameters() if weight.requires_grad}
    state = {id(value): value.nbytes for value in [*module.parameters(), *module.buffers()]}
    return sum(trained.values()), sum(size for key, size in state.items() if key not in trained)
