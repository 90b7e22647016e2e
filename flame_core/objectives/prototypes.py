"""ProtoCLIP's term: each picture must find the prototype of the cluster that its caption belongs to.

The captions' clusters are computed once (`flame cluster`): labels y per sample, centroids C [K, E]. With prototypes P
[K, d], the share of a picture with the vector h [d] is a cross entropy against soft targets,

    q = s h P^T,   p = softmax_k(C_y . C_k / tau),   share = - sum_k p_k log softmax_k(q)

- `pbt` (prototype back translation): h is a head's unit vector of the pooled feature, and P the mean of h over the
  pictures whose captions have that label. P is summed up while training and swapped in at the end of an episode, so no
  second pass over the data is needed; the first episode has no prototypes, and its share is 0.
- `direct`: h is z in the reduced space in which the captions were clustered, and P = C. It has no state.

Clusters without a prototype are masked, and so are pictures of such a cluster. No gradient flows to P, C and p.
(ProtoCLIP, arXiv 2206.10996.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from flame_core.clustering.centroids import STORE, Centroids, read_centroids, require_labels
from flame_core.errors import InputError
from flame_core.objectives.batch import Batch, Features, Moment
from flame_core.objectives.contrastive import Contrastive
from flame_core.objectives.term import ONE_SAMPLE, Needs, Setup
from flame_core.params import PrototypesParams, TrainParams
from flame_core.params.training import OptimizerParams
from flame_core.processes.ranks import Ranks
from flame_core.vision.tower import ImageTower

_EMPTY = torch.finfo(torch.float32).min  # a logit of an empty cluster; -inf would be NaN if all are empty


def soft_targets(centroids: Tensor, labels: Tensor, there: Tensor, temperature: float | None) -> Tensor:
    """P [b, K]: how near the centroid of each label [b] is to all centroids [K, E] of which `there` [K] is true.

    Without a temperature, all of it is on the label.
    """
    if temperature is None:
        return F.one_hot(labels, len(centroids)).to(centroids.dtype)
    near = centroids[labels] @ centroids.T / temperature
    return near.masked_fill(~there, _EMPTY).softmax(dim=1)


def prototype_losses(h: Tensor, scale: Tensor, prototypes: Tensor, there: Tensor, targets: Tensor) -> Tensor:
    """The cross entropies [b] of h [b, d] against prototypes [K, d] for targets [b, K]."""
    logits = (scale * h @ prototypes.T).masked_fill(~there, _EMPTY)
    return -(targets * logits.log_softmax(dim=1).masked_fill(~there, 0)).sum(dim=1)


class Prototypes(Contrastive):
    """Each rank computes the share of its own pictures; head and tables are the same on all ranks."""

    sums: Tensor  # [K, d] of h by label in this episode
    counts: Tensor  # [K]
    table: Tensor  # [K, d], the prototypes of the last episode
    there: Tensor  # [K], whether a cluster has one

    @classmethod
    def needs(cls, params: PrototypesParams) -> Needs:
        read = "pooled" if params.mode == "pbt" else "z"
        return Needs(reads=frozenset({read}), sidecars=(params.labels,))

    @classmethod
    def faults(cls, params: PrototypesParams, recipe: TrainParams, tower: ImageTower) -> Iterator[str]:
        if params.mode == "direct" and recipe.model.head == "lexical":
            yield "mode direct compares with clusters of vectors, and model.head lexical gives words: take mode pbt"
        learned = "text_tower" if recipe.text_tower is not None else "text_projection"
        if params.mode == "direct" and getattr(recipe, learned) is not None:
            yield (
                f"mode direct compares with clusters of the LLM's vectors, and {learned} takes pictures into another "
                "space: take mode pbt"
            )
        if params.mode == "pbt" and recipe.batch_size == 1:
            yield ONE_SAMPLE

    def __init__(self, params: PrototypesParams, setup: Setup) -> None:
        super().__init__(params, setup)
        self._params, self._at_once = params, setup.micro_batch_size
        folder = setup.sidecars[params.labels]
        found = read_centroids(folder)
        origin = require_labels(folder, len(found.centroids)).manifest.origin
        if params.mode == "direct" and (origin.get("vectors") != STORE or len(found.mean) != setup.hidden):
            raise InputError(
                f"{folder}: clusters of vectors of {len(found.mean)} dimensions from {origin.get('vectors')}; mode: "
                f"direct compares pictures with clusters of the stored text vectors ({setup.hidden} dimensions). Take "
                "mode: pbt, or cluster the store"
            )
        if params.mode == "direct" and origin.get("reading", setup.reading) != setup.reading:
            raise InputError(
                f"{folder}: clusters of vectors read as {origin['reading']}, and the recipe reads {setup.reading}: set "
                "cluster.reading to the recipe's reading, or take mode: pbt"
            )
        self.teacher = _Teacher(found)
        if params.mode == "direct":
            return
        clusters = len(found.centroids)
        self.head = nn.Sequential(
            nn.Linear(setup.tower.backbone.num_features, params.hidden),
            nn.BatchNorm1d(params.hidden),
            nn.ReLU(),
            nn.Linear(params.hidden, params.dim),
        )
        for name in ("sums", "table"):
            self.register_buffer(name, torch.zeros(clusters, params.dim))
        self.register_buffer("counts", torch.zeros(clusters))
        self.register_buffer("there", torch.zeros(clusters, dtype=torch.bool))

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        with torch.autocast(batch.pictures.device.type, enabled=False):
            own = len(batch)
            if self._params.mode == "direct":
                h = self.teacher.reduced(features["z"][:, 0, 0].float())
            else:
                everyone = F.normalize(self.head(ranks.gather(features["pooled"][:, 0].float())), dim=-1)
                self._everyone = everyone.detach()  # for `after_step` of this step
                h = everyone[ranks.rank * own : (ranks.rank + 1) * own]
            labels, size = batch.extra[self._params.labels], self._at_once or own
            parts = list(zip(h.split(size), labels.split(size), strict=True))
            if len(parts) == 1:
                total = self._losses(h, labels).sum()
            else:  # [b, K] logits are computed again in backward, part by part
                total = torch.stack(
                    [checkpoint(self._losses, *each, use_reentrant=False).sum() for each in parts]
                ).sum()
            return {"prototypes": total / (own * ranks.world)}

    def _losses(self, h: Tensor, labels: Tensor) -> Tensor:
        """The losses [b] of the vectors h [b, d] of pictures with these labels [b]."""
        direct = self._params.mode == "direct"
        prototypes, there = (self.teacher.centroids, self.teacher.there) if direct else (self.table, self.there)
        targets = soft_targets(self.teacher.centroids, labels, there, self._params.target_temperature)
        return prototype_losses(h, self.logit_scale.exp(), prototypes, there, targets) * there[labels]

    def after_step(self, tower: ImageTower, features: Features, batch: Batch, at: Moment, ranks: Ranks) -> None:
        """Clamp the scale, add this step's vectors to the sums, and swap the table at the end of an episode."""
        super().after_step(tower, features, batch, at, ranks)
        if self._params.mode == "direct":
            return
        labels = ranks.gather(batch.extra[self._params.labels])
        self.sums.index_put_((labels,), self._everyone, accumulate=True)  # unlike index_add_, in order on a GPU too
        self.counts.index_put_((labels,), torch.ones_like(labels, dtype=self.counts.dtype), accumulate=True)
        if (at.step + 1) % (self._params.episode_steps or at.steps_per_epoch) == 0:
            self._swap()

    def _swap(self) -> None:
        self.there.copy_(self.counts > 0)
        self.table.copy_(torch.where(self.there[:, None], self.sums / self.counts[:, None], 0))
        for tensor in (self.sums, self.counts):
            tensor.mul_(self._params.decay)

    def groups(self, optimizer: OptimizerParams) -> list[dict[str, Any]]:
        """As in the paper's code, the head does not decay."""
        return [group | {"weight_decay": 0.0} for group in super().groups(optimizer)]

    def frozen(self) -> Iterable[nn.Module]:
        return (self.teacher,)

    def scalars(self) -> dict[str, float | Tensor]:
        if self._params.mode == "direct":
            return super().scalars()
        return {**super().scalars(), "clusters": self.there.float().mean()}


class _Teacher(nn.Module):
    """The clusters of the captions, from the file of `flame cluster`."""

    centroids: Tensor  # [K, E]
    there: Tensor  # [K], whether a cluster has samples
    mean: Tensor  # [D]
    basis: Tensor  # [D, E]

    def __init__(self, found: Centroids) -> None:
        super().__init__()
        self.register_buffer("there", torch.from_numpy(found.counts > 0))
        for name in ("centroids", "mean", "basis"):
            self.register_buffer(name, torch.from_numpy(getattr(found, name)))

    def reduced(self, z: Tensor) -> Tensor:
        """Unit vectors [b, E] of z [b, D] in the space of the centroids."""
        return F.normalize((z - self.mean) @ self.basis, dim=-1)
