"""One training step: features of the whole batch, in pieces (`stepping/pieces.py`), its exact loss, and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from flame_core.objectives.batch import Batch, Features, Moment
from flame_core.params import TrainParams
from flame_core.processes.compiling import allow_variants
from flame_core.processes.gpu import memory_advice
from flame_core.processes.ranks import Ranks
from flame_core.stepping.graph_room import GraphRoom
from flame_core.stepping.pieces import Pieces, in_pieces
from flame_core.training.assembly import Assembly


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
            allow_variants()
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
