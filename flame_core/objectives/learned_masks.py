"""TinyCLIP's learned masks: which dimensions, heads and hidden units of the tower are worth keeping.

A mask lies over the width, one over the heads and one over the hidden units of each block, all hard concrete. For the
first `share` of the training they are drawn anew in each step and trained with the weights; then the tower is pruned to
what they keep, and the rest of the training goes on with the small tower (`training.loop`). The loss is a Lagrangian:

    s = 1 - N / P,   N = sum over blocks of sum_i p_i (4 d sum_h p_h + 2 sum_m p_m),   p = P(z > 0)
    L = l1 c + l2 c^2,   c = max(q - s, 0)

N is the expected number of weights in the matrices of the blocks with heads of d dimensions, and P that of the whole
backbone. q rises linearly to 1 - `keep` in the first third. The multipliers l1 and l2 rise while c > 0: their gradient
is flipped. Nothing holds the masks at q: after a short training they leave far less than `keep`. So in the end one
number is added to all logits, with which they leave `keep`. (TinyCLIP, arXiv 2309.12314; differences to its code:
docs/siblings.md.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from flame_core.errors import ParamsError
from flame_core.objectives.batch import Batch, Features, Moment
from flame_core.objectives.term import DrawingTerm, Needs, Setup
from flame_core.params import LearnedMasksParams, SizesParams, TrainParams
from flame_core.params.training import OptimizerParams
from flame_core.processes.gpu import on_device
from flame_core.processes.ranks import Ranks
from flame_core.vision import hard_concrete
from flame_core.vision.block_sizes import block_weights, sizes_of, why_not_plain
from flame_core.vision.masked_tower import Masked, Masks
from flame_core.vision.tower import ImageTower

_TRAVEL = 10.0  # how far a mask goes from open to closed, in log alpha
_FARTHEST = 20.0  # such a shift opens or closes any mask
_RATE, _FEWEST = 0.02, 75  # the paper's; steps below which so high a rate is needed that masks overshoot


def step_faults(params: LearnedMasksParams, steps: int) -> Iterator[str]:
    """Why a training of so many steps cannot learn masks."""
    last, rate = _last_step(params, steps), _rate(params, steps)
    said = f"{last} steps (share {params.share:g} of {steps})"
    if last * rate < _TRAVEL:
        yield f"{said} with learning_rate {rate:g} close no mask: take a higher one, or a larger share"
    elif params.learning_rate is None and last < _FEWEST:
        yield (
            f"{said} are too few to learn masks, which takes at least {_FEWEST}: take a larger share, more epochs or a "
            "smaller batch, or give a learning_rate"
        )
    if last >= steps:
        yield f"{said} leave none for the pruned tower: take a smaller share"


def _last_step(params: LearnedMasksParams, steps: int) -> int:
    """The step before which the tower is pruned."""
    return round(params.share * steps)


def _rate(params: LearnedMasksParams, steps: int) -> float:
    """The masks' learning rate; without one in params, as high as masks need to close in time."""
    return params.learning_rate or max(_RATE, 1.5 * _TRAVEL / max(1, _last_step(params, steps)))


class LearnedMasks(DrawingTerm):
    """Masks over the tower and the multipliers of their Lagrangian; `size` is N / P, after pruning without chance."""

    size: Tensor

    @classmethod
    def needs(cls, params: LearnedMasksParams) -> Needs:
        return Needs(reads=frozenset())

    @classmethod
    def faults(cls, params: LearnedMasksParams, recipe: TrainParams, tower: ImageTower) -> Iterator[str]:
        from flame_core.objectives import term_class

        if recipe.objective.name == params.name:
            yield "it compares no pictures with texts: name it under terms, beside an objective"
        if reason := why_not_plain(tower.backbone):
            yield f"{reason}: take a plain ViT"
            return
        if tower.facet_tokens is not None:
            yield "facet tokens are as wide as the backbone and cannot be masked: set model.facet_blocks to null"
        if recipe.model.head == "lexical":
            yield "model.head lexical has a block as wide as the backbone and cannot be masked: take another head"
        if recipe.model.head == "none":
            yield "model.head none keeps the backbone's width, which masks change: take another head"
        for other in (recipe.objective, *recipe.terms):
            needs = term_class(other).needs(other)
            if wide := sorted(needs.reads - {"z"}) or (["a copy of the tower"] if needs.copies else []):
                yield f"{other.name} reads {', '.join(wide)}, whose size changes with the tower's: leave one out"
        if (smallest := _smallest(tower) / _whole(tower)) > params.keep:
            yield (
                f"keep {params.keep:g} leaves nothing: {smallest:.2g} of the weights are left with one head and one "
                "hidden unit per block and the width of a head"
            )

    def __init__(self, params: LearnedMasksParams, setup: Setup) -> None:
        super().__init__(params, setup)
        self._params = params
        self._last, self._rate = _last_step(params, setup.steps), _rate(params, setup.steps)
        for fault in step_faults(params, setup.steps):
            raise ParamsError(f"train: the term {params.name}: {fault}")
        backbone = setup.tower.backbone
        sizes, self._head_dim, self._whole = sizes_of(backbone), _head_dim(backbone), _whole(setup.tower)
        begin = block_weights(sizes, self._head_dim) / self._whole
        if begin <= params.keep:
            raise ParamsError(
                f"train: the term {params.name}: keep {params.keep:g}, and the tower begins with {begin:.3g} of the "
                "backbone's weights: keep less"
            )
        self._begin = 1 - begin
        self.hidden = _opened(sizes.width)
        self.heads = nn.ParameterList(_opened(n) for n in sizes.heads)
        self.intermediate = nn.ParameterList(_opened(n) for n in sizes.intermediate)
        self.multipliers = nn.Parameter(torch.full((2,), params.multiplier))
        self.keep_seed()
        self.register_buffer("size", torch.tensor(begin, dtype=torch.float64))
        self.prunes, self._wanted = True, self._begin
        self._drawn: list[Tensor] = []
        self._leaves: list[Tensor] = []
        self.register_load_state_dict_pre_hook(_close_if_pruned)

    def prepare(self, batch: Batch, tower: ImageTower, at: Moment, ranks: Ranks) -> Batch:
        """Draw the masks of this step, the same on all ranks."""
        if not self.prunes:
            return batch
        rise = min(1.0, 3 * (at.step + 1) / self._last)
        self._wanted = self._begin + (1 - self._params.keep - self._begin) * rise
        if tower.masked is None:
            tower.masked = Masked(tower.backbone)
        generator = self.generator(at)
        with torch.enable_grad(), torch.autocast(self.hidden.device.type, enabled=False):
            self._drawn = [self._draw(a, generator) for a in self._logits()]
        self._leaves = [mask.detach().requires_grad_() for mask in self._drawn]
        tower.masked.masks = self._as_masks(self._leaves)
        return batch

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        if not self.prunes:
            return {"lagrangian": features["t"].new_zeros(())}
        with torch.autocast(self.hidden.device.type, enabled=False):
            missing = (self._wanted - (1 - self.expected_size())).clamp(min=0)
            return {"lagrangian": lagrangian(missing, self.multipliers) / ranks.world}

    def after_backward(self, world: int) -> None:
        """Carry the gradients of the masks inside the tower on to what is learned."""
        if self._leaves:
            gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad / world for leaf in self._leaves]
            torch.autograd.backward(self._drawn, gradients)
            self._drawn, self._leaves = [], []

    def after_step(self, tower: ImageTower, features: Features, batch: Batch, at: Moment, ranks: Ranks) -> None:
        if self.prunes:
            for a in self._logits():
                a.clamp_(hard_concrete.LOWEST, hard_concrete.HIGHEST)
            self.size.fill_(self.expected_size())

    def pruning(self, at: Moment) -> Masks | None:
        """The masks that stay, before the first step without chance; the term is closed then."""
        if not self.prunes or at.step < self._last:
            return None
        masks = self.settled(self._shift())
        self.size.fill_(self._size_of(masks))
        self.close()
        return masks

    def close(self) -> None:
        """Forget the masks: the tower is pruned."""
        del self.hidden, self.heads, self.intermediate, self.multipliers
        self.prunes = False

    @torch.no_grad()
    def settled(self, shift: float = 0.0) -> Masks:
        """The masks without chance, after `shift` is added to all logits."""
        return self._as_masks([hard_concrete.settled(a + shift, self._params.temperature) for a in self._logits()])

    def _shift(self) -> float:
        """The largest shift of all logits with which the masks leave at most `keep`."""
        low, high = -_FARTHEST, _FARTHEST
        for _ in range(40):
            middle = (low + high) / 2
            fits = self._size_of(self.settled(middle)) <= self._params.keep
            low, high = (middle, high) if fits else (low, middle)
        return low

    def _size_of(self, masks: Masks) -> float:
        kept, depth = [int((mask > 0).sum()) for mask in masks.each()], len(masks.heads)
        sizes = SizesParams(width=kept[0], heads=kept[1 : 1 + depth], intermediate=kept[1 + depth :])
        return block_weights(sizes, self._head_dim) / self._whole

    def expected_size(self) -> Tensor:
        """N / P."""
        hidden, *others = (hard_concrete.probability(a, self._params.temperature).sum() for a in self._logits())
        heads, units = others[: len(self.heads)], others[len(self.heads) :]
        return hidden * (4 * self._head_dim * sum(heads) + 2 * sum(units)) / self._whole

    def groups(self, optimizer: OptimizerParams) -> list[dict[str, Any]]:
        """All with a rate of their own, which no schedule changes, and without decay."""
        own: dict[str, Any] = {"weight_decay": 0.0, "multiplier": 1.0, "rate": self._rate}
        return [{"params": list(self.parameters()), **own}] if self.prunes else []

    def scalars(self) -> dict[str, float | Tensor]:
        return {"size": self.size}

    def _draw(self, a: Tensor, generator: torch.Generator) -> Tensor:
        u = on_device(torch.rand(len(a), generator=generator), a.device)
        return hard_concrete.sample(a, u, self._params.temperature)

    def _logits(self) -> list[Tensor]:
        return [self.hidden, *self.heads, *self.intermediate]

    def _as_masks(self, each: list[Tensor]) -> Masks:
        depth = len(self.heads)
        return Masks(each[0], each[1 : 1 + depth], each[1 + depth :])


def lagrangian(missing: Tensor, multipliers: Tensor) -> Tensor:
    """l1 c + l2 c^2 for the missing sparsity c >= 0; descent on its gradient lets the multipliers l [2] ascend."""
    ascending = 2 * multipliers.detach() - multipliers  # the same value with the gradient -1
    return ascending[0] * missing + ascending[1] * missing.square()


def _opened(n: int) -> nn.Parameter:
    return nn.Parameter(torch.full((n,), hard_concrete.START))


def _head_dim(backbone: Any) -> int:
    return backbone.blocks[0].attn.head_dim


def _smallest(tower: ImageTower) -> int:
    """Weights of the blocks of the smallest tower that is still one."""
    depth, size = len(tower.backbone.blocks), _head_dim(tower.backbone)
    return block_weights(SizesParams(width=size, heads=[1] * depth, intermediate=[1] * depth), size)


def _whole(tower: ImageTower) -> int:
    """Weights of the blocks of the backbone before anything was taken away."""
    return block_weights(tower.backbone.uncut, _head_dim(tower.backbone))


def _close_if_pruned(module: LearnedMasks, state: dict[str, Any], prefix: str, *others: Any) -> None:
    """A checkpoint from after the pruning has no masks."""
    if module.prunes and f"{prefix}hidden" not in state:
        module.close()
