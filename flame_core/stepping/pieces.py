"""Features of a whole batch, and their gradients, in as many pieces as memory requires.

A contrastive loss needs the features of the whole batch at once, but not their graphs. Every piece first runs forward
without a graph, and the loss gives the gradient of each feature; then the pieces run again one by one with a graph,
through which that gradient is propagated (GradCache, arXiv 2101.06983). So a batch of 3,072 fits one GPU, with the
exact loss of 3,072. A single piece keeps its graph and nothing is computed twice. On a GPU, as many pieces as there is
room for keep their graph too (`graph_room`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from flame_core.stepping.graph_room import GraphRoom
from flame_core.stepping.random_state import RandomState, random_state, set_random_state

P = TypeVar("P")
Features = Mapping[str, Tensor]


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
