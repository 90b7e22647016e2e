"""One training step: features of the whole batch, its exact loss, and gradients in as many pieces as memory requires.

A contrastive loss needs the features of the whole batch at once, but not their graphs. With `micro_batch_size`, every
piece first runs forward without a graph, and the loss gives the gradient of each feature; then the pieces run again one
by one with a graph, through which that gradient is propagated (GradCache, arXiv 2101.06983). So a batch of 3,072 fits
one GPU, with the exact loss of 3,072. Without it, the first run keeps its graph and nothing is computed twice. On a
GPU, as many pieces as there is room for keep their graph too (`graph_room`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from flame_core.objectives.batch import Batch, Features, Moment
from flame_core.params import TrainParams
from flame_core.processes.gpu import memory_advice
from flame_core.processes.ranks import Ranks
from flame_core.stepping.random_state import RandomState, random_state, set_random_state
from flame_core.training.assembly import Assembly
from flame_core.training.graph_room import GraphRoom

P = TypeVar("P")


class Step:
    """A step of one rank: prepare, features in pieces, weighted shares, backward, optimise, after_step."""

    def __init__(
        self,
        assembly: Assembly,
        optimizer: torch.optim.Optimizer,
        params: TrainParams,
        ranks: Ranks,
        device: str,
    ) -> None:
        self._assembly, self._optimizer, self._params, self._ranks = assembly, optimizer, params, ranks
        if params.compile and device == "cuda" and not assembly.objective.prunes:
            assembly.tower.compile()
        self._device = device
        self._tower = ranks.wrap(assembly.tower, in_part=assembly.objective.reads_vary)
        self._text_tower = None if assembly.text_tower is None else ranks.wrap(assembly.text_tower)
        self._room = GraphRoom(device, ranks)

    def __call__(self, batch: Batch, at: Moment) -> dict[str, Tensor]:
        """Train on this rank's part of a batch.

        Returns:
            This rank's weighted shares of the loss by name, scalars.
        """
        with memory_advice(_advice(self._params)), self._room.step(self._assembly.objective.counting_at(at)):
            return self._trained(batch, at)

    def _trained(self, batch: Batch, at: Moment) -> dict[str, Tensor]:
        objective, micro = self._assembly.objective, self._params.micro_batch_size
        self._optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            batch = objective.prepare(batch, self._assembly.tower, at, self._ranks)
        images = None
        if objective.reads:
            run = partial(self._image_features, reads=tuple(sorted(objective.reads)))
            images = in_pieces(run, batch.split(micro or len(batch)), self._tower, self._device, self._room)
        texts, t = self._text_features(batch)
        features = {**(images.features if images else {}), "t": t}
        shares = objective(features, batch, self._ranks)
        torch.stack(list(shares.values())).sum().backward()
        for of_tower in (images, texts):
            if of_tower is not None and (of_tower.counts or not objective.phased):
                of_tower.backward(self._ranks.world)
        objective.after_backward(self._ranks.world)
        heads = [p for p in objective.parameters() if p.requires_grad]
        self._ranks.sum_(*(p.grad for p in heads))
        if self._params.optimizer.clip_grad_norm is not None:
            towers = [self._tower] if self._text_tower is None else [self._tower, self._text_tower]
            weights = [weight for tower in towers for weight in tower.parameters()]
            weights += [p for p in heads if p.ndim > 0]
            nn.utils.clip_grad_norm_(weights, self._params.optimizer.clip_grad_norm)
        self._optimizer.step()
        detached = {name: value.detach() for name, value in features.items()}
        objective.after_step(self._assembly.tower, detached, batch, at, self._ranks)
        return {name: share.detach() for name, share in shares.items()}

    def _image_features(self, piece: Batch, reads: Sequence[str]) -> Features:
        b, views = piece.pictures.shape[:2]
        pictures, kept = piece.pictures.flatten(0, 1), None if piece.keep is None else piece.keep.flatten(0, 1)
        with self._autocast():
            features = self._tower(pictures, reads, kept)
        return {name: value.unflatten(0, (b, views)) for name, value in features.items()}

    def _text_features(self, batch: Batch) -> tuple[Pieces | None, Tensor]:
        """The text tower's `Pieces`, if there is one, and t [b, K, D]."""
        tower, micro = self._text_tower, self._params.micro_batch_size
        if tower is None:
            return None, batch.texts.float()
        b, k, length = batch.texts.shape
        captions, place = batch.texts.reshape(b * k, length), slice(None)
        if not captions.is_floating_point():
            captions, place = torch.unique(captions, dim=0, return_inverse=True)  # equal captions once

        def run(ids: Tensor) -> Features:
            with self._autocast():
                return {"t": tower(ids.float() if ids.is_floating_point() else ids)}

        even = micro is None or micro >= b
        texts = in_pieces(run, captions.split(micro * k if micro else len(captions)), tower, self._device, even=even)
        return texts, texts.features["t"][place].reshape(b, k, -1)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device, torch.bfloat16, enabled=self._params.precision == "bfloat16")


def _advice(params: TrainParams) -> str:
    if params.micro_batch_size is None:
        return (
            f"set train.micro_batch_size to a part of train.batch_size ({params.batch_size}); the loss stays the same"
        )
    return f"set train.micro_batch_size (now {params.micro_batch_size}) to less; the loss stays the same"


@dataclass(frozen=True)
class Pieces:
    """Features of a whole batch as leaves that collect gradients.

    Attributes:
        features: by name.
        backward: propagates the leaves' gradients to the weights, multiplied by its argument, the number of ranks:
            DistributedDataParallel averages over the ranks, but the gradients must be summed.
    """

    features: dict[str, Tensor]
    backward: Callable[[int], None]

    @property
    def counts(self) -> bool:
        """Whether the loss depended on any of them, after its backward."""
        return any(leaf.grad is not None for leaf in self.features.values())


def in_pieces(
    run: Callable[[P], Features],
    pieces: Sequence[P],
    module: nn.Module,
    device: str,
    room: GraphRoom | None = None,
    *,
    even: bool = True,
) -> Pieces:
    """The features that `run` computes from each piece with `module`; a piece without its graph runs twice.

    One piece keeps its graph. Of several, the first ones do for which there is room. With DistributedDataParallel, the
    last piece never does: gradients are exchanged in backward after the last forward. If ranks may have different
    numbers of pieces (not `even`), a single one does not either: a forward of DistributedDataParallel may wait for all
    ranks, so it must come at the same place in all of them.
    """
    exchanged = isinstance(module, DistributedDataParallel)
    if len(pieces) == 1 and (even or not exchanged):
        out = run(pieces[0])
        leaves = {name: value.detach().requires_grad_() for name, value in out.items()}
        return Pieces(leaves, lambda world: _hand_on(out, _gradients(leaves, world)))
    kept = min(room.kept if room else 0, len(pieces) - exchanged)
    graphs: list[Features] = []
    states: list[RandomState] = []
    outs: list[Features] = []
    for number, piece in enumerate(pieces):
        if number < kept:
            with _no_exchange(module):
                graphs.append(run(piece))
            outs.append({name: value.detach() for name, value in graphs[-1].items()})
        else:
            states.append(random_state(torch.device(device)))
            with torch.no_grad():
                outs.append(run(piece))
    leaves = {name: torch.cat([out[name] for out in outs]).requires_grad_() for name in outs[0]}
    sizes = [len(next(iter(out.values()))) for out in outs]

    def backward(world: int) -> None:
        if not any(weight.requires_grad for weight in module.parameters()):
            return
        gradients = {name: grad.split(sizes) for name, grad in _gradients(leaves, world).items()}
        parts = [{name: own[number] for name, own in gradients.items()} for number in range(len(pieces))]
        for part in parts[:kept]:
            with _no_exchange(module):
                _hand_on(graphs.pop(0), part)
        for number in range(kept, len(pieces)):
            set_random_state(states[number - kept], torch.device(device))  # the same dropout as in the first run
            with nullcontext() if number == len(pieces) - 1 else _no_exchange(module):
                again = partial(run, pieces[number])
                _hand_on(room.held(again) if room else again(), parts[number])

    return Pieces(leaves, backward)


def _gradients(leaves: Features, world: int) -> dict[str, Tensor]:
    """Gradients of the leaves that the loss depends on."""
    gradients = {name: leaf.grad * world for name, leaf in leaves.items() if leaf.grad is not None}
    if not gradients:
        raise RuntimeError("the loss does not depend on these features")
    return gradients


def _hand_on(features: Features, gradients: Features) -> None:
    """Carry gradients on, past features that come from frozen weights only."""
    reached = [name for name in gradients if features[name].requires_grad]
    if reached:
        torch.autograd.backward([features[name] for name in reached], [gradients[name] for name in reached])


def _no_exchange(tower: nn.Module) -> AbstractContextManager[None]:
    """Gradients are accumulated on this rank until the last piece, and then exchanged once."""
    return tower.no_sync() if isinstance(tower, DistributedDataParallel) else nullcontext()
