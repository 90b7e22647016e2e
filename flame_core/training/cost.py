"""What training the image tower costs: FLOPs an image, and the memory of a process.

FLOPs are counted by torch's own counter on the real tower without weights (meta device). Memory follows from one
forward of one and of two pictures on the CPU: what autograd keeps for backward grows by the difference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flame_core.params import TrainParams
from flame_core.vision.tower import ImageTower

_ADAM_BYTES = 16  # a weight, its gradient and two moments in float32


@dataclass(frozen=True)
class ImageCost:
    """Training one recipe.

    Attributes:
        weights: number of trained weights of tower and projector.
        forward_flops: of one picture.
        activation_bytes: kept for backward, one picture.
        fixed_bytes: weights, gradients, moments, and what else does not grow with the batch.
        steps: optimiser steps.
        batch_size: pictures a step.
        forwards: how often a picture passes forward in a step.
        held: pictures whose activations a process holds at once.
        loss_bytes: pictures, texts (as stored in 16 bits, and in 32) and logits of a step on one process.
    """

    weights: int
    forward_flops: float
    activation_bytes: int
    fixed_bytes: int
    steps: int
    batch_size: int
    forwards: int
    held: int
    loss_bytes: int

    @property
    def flops(self) -> float:
        """Of the whole training: backward costs two forwards."""
        return self.steps * self.batch_size * self.forward_flops * (self.forwards + 2)

    @property
    def memory(self) -> int:
        """Bytes that a process needs at its peak."""
        return self.fixed_bytes + self.held * self.activation_bytes + self.loss_bytes

    def with_micro_batch(self, micro: int) -> ImageCost:
        """The same with gradients in pieces of `micro` pictures."""
        more = 0 if self.held < self.batch_size else 1
        return replace(self, held=min(micro, self.held), forwards=self.forwards + more)


def image_cost(params: TrainParams, hidden: int, facets: int, samples: int, processes: int = 1) -> ImageCost:
    """The cost of a recipe over `samples` pictures into `hidden` dimensions, on so many processes."""
    batch = min(params.batch_size, samples)
    own = batch // processes
    held = min(params.micro_batch_size or own, own)
    one, two = (_saved_bytes(params, hidden, facets, pictures) for pictures in (1, 2))
    weights, flops = _weights_and_flops(params, hidden, facets)
    k = params.texts_per_image
    size = params.model.image_size
    logits = 3 * batch * own * k * 4  # the logits, their gradient and one in between
    return ImageCost(
        weights=weights,
        forward_flops=flops,
        activation_bytes=two - one,
        fixed_bytes=weights * _ADAM_BYTES + max(0, 2 * one - two),
        steps=params.epochs * (samples // batch),
        batch_size=batch,
        forwards=1 + (held < own) + params.model.checkpoint_activations,
        held=held,
        loss_bytes=logits + own * (4 * 3 * size * size + (4 + 2) * k * hidden),
    )


def _weights_and_flops(params: TrainParams, hidden: int, facets: int) -> tuple[int, float]:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        tower = ImageTower(params.model, hidden, facets).eval()
        picture = torch.empty(1, 3, params.model.image_size, params.model.image_size)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        tower(picture)
    return sum(weight.numel() for weight in tower.parameters()), counter.get_total_flops()


def _saved_bytes(params: TrainParams, hidden: int, facets: int, pictures: int) -> int:
    """Bytes that autograd keeps of a forward, the weights themselves left out."""
    state = torch.get_rng_state()
    tower = ImageTower(params.model, hidden, facets).train()
    torch.set_rng_state(state)
    own = {weight.untyped_storage().data_ptr() for weight in tower.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor  # held, so that no storage is used twice
        return tensor

    size = params.model.image_size
    inputs = torch.zeros(pictures, 3, size, size)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=params.precision == "bfloat16"),
    ):
        out = tower(inputs)
    del out
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
