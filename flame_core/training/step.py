"""One training step: features of the whole batch, its exact loss, and gradients in as many pieces as memory asks for.

A contrastive loss needs the features of the whole batch at once, but not their graphs. With `micro_batch_size` every
piece runs forward without a graph; the loss gives each feature its gradient; then piece by piece runs again with a
graph and hands that gradient on (GradCache, arXiv 2101.06983). So a batch of 3,072 fits one GPU, with the loss of
3,072. Without it the first run keeps its graph and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from flame_core.objectives.objective import Objective
from flame_core.params import TrainParams
from flame_core.ranks import Ranks

RandomState = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Step:
    """A step of one rank. Towers may be wrapped by `Ranks.wrap`; without a text tower texts are vectors already."""

    tower: nn.Module
    text_tower: nn.Module | None
    objective: Objective
    optimizer: torch.optim.Optimizer
    params: TrainParams
    ranks: Ranks
    device: str

    def __call__(self, pictures: Tensor, texts: Tensor, facets: Tensor) -> Tensor:
        """Train on this rank's normalised pictures [b, 3, H, W], texts and facet numbers [b, K].

        Texts are vectors [b, K, D] of any float type, or ids [b, K, L].

        Returns:
            This rank's share of the loss, a scalar.
        """
        self.optimizer.zero_grad(set_to_none=True)
        micro = self.params.micro_batch_size
        z, *backward = features(self.tower, pictures, micro, self._autocast)
        if self.text_tower is None:
            t = texts.float()
        else:
            b, k, length = texts.shape
            captions, place = torch.unique(texts.reshape(b * k, length), dim=0, return_inverse=True)  # drawn twice
            t, backward_texts = features(self.text_tower, captions, micro and micro * k, self._autocast)
            backward.append(backward_texts)
            t = t[place].reshape(b, k, -1)
        share = self.objective.weight * self.objective(z, t, facets, self.ranks)
        share.backward()
        for into_tower in backward:
            into_tower(self.ranks.world)
        self.ranks.sum_(*(p.grad for p in self.objective.parameters()))
        if self.params.optimizer.clip_grad_norm is not None:
            towers = [self.tower] if self.text_tower is None else [self.tower, self.text_tower]
            weights = [weight for tower in towers for weight in tower.parameters()]
            nn.utils.clip_grad_norm_(weights, self.params.optimizer.clip_grad_norm)
        self.optimizer.step()
        self.objective.clamp()
        return share.detach()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.params.precision == "bfloat16")


def features(
    tower: nn.Module, inputs: Tensor, micro: int | None, autocast: Callable[[], torch.autocast]
) -> tuple[Tensor, Callable[[int], None]]:
    """Outputs of the tower as a leaf that collects gradients, and what carries these back into the tower's weights.

    Call `backward(world)` once `leaf.grad` is there; gradients are scaled by `world`, since
    DistributedDataParallel averages over ranks what is to be summed.
    """
    if micro is None or micro >= len(inputs):
        with autocast():
            out = tower(inputs)
        leaf = out.detach().requires_grad_()
        return leaf, lambda world: out.backward(_gradient(leaf, world))
    pieces = inputs.split(micro)
    states: list[RandomState] = []
    outs = []
    for piece in pieces:
        states.append(random_state(inputs.device))
        with torch.no_grad(), autocast():
            outs.append(tower(piece))
    leaf = torch.cat(outs).requires_grad_()

    def backward(world: int) -> None:
        grads = _gradient(leaf, world).split(micro)
        for number, (piece, state, grad) in enumerate(zip(pieces, states, grads, strict=True)):
            set_random_state(state, inputs.device)  # the same dropout as in the run without a graph
            last = number == len(pieces) - 1
            with nullcontext() if last else _no_exchange(tower):
                with autocast():
                    out = tower(piece)
                out.backward(grad)

    return leaf, backward


def _gradient(leaf: Tensor, world: int) -> Tensor:
    if leaf.grad is None:
        raise RuntimeError("the loss does not depend on these features")
    return leaf.grad * world


def _no_exchange(tower: nn.Module) -> AbstractContextManager[None]:
    """Gradients add up on this rank until the last piece; then they are exchanged, once."""
    return tower.no_sync() if isinstance(tower, DistributedDataParallel) else nullcontext()


def random_state(device: torch.device) -> RandomState:
    """State of the generators that dropout and stochastic depth draw from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_random_state(state: RandomState, device: torch.device) -> None:
    """Put `random_state` back."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
