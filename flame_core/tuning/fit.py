"""Trains one head on stored features, on one thread of the CPU: minutes, and the same bytes on every run.

AdamW, cosine to 0 by step, no warm-up. A step of a head with an MLP takes B pictures and two of each one's K stored
views: the 2 B rows are the batch of its norm, of L_COV and of L_SVD, so those depend on B. The linear probe takes plain
features. The last pictures of an epoch are left out if they do not fill a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from flame_core.errors import ComputationError
from flame_core.params import NMTUNE_TERMS, TuneParams
from flame_core.tuning.head import Head, LinearProbe, NMTuneHead, scaled
from flame_core.tuning.losses import Weights, nmtune_loss

Terms = dict[str, float]


@dataclass(frozen=True)
class TrainingFeatures:
    """What a head is trained on, as heads read it.

    Attributes:
        plain: features [N, D], for the linear probe.
        labels: classes [N].
        classes: how many there are.
        views: features of K views [N, K, D], for heads with an MLP.
    """

    plain: Tensor
    labels: Tensor
    classes: int
    views: Tensor | None = None

    @classmethod
    def of(cls, plain: np.ndarray, labels: np.ndarray, classes: int) -> TrainingFeatures:
        """From features [N, D] as a model gives them."""
        return cls(scaled(plain), torch.from_numpy(labels), classes)

    def with_views(self, views: np.ndarray) -> TrainingFeatures:
        """The same with those of K views [N, K, D]."""
        return replace(self, views=scaled(views))


@dataclass(frozen=True)
class Fitted:
    """A trained head.

    Attributes:
        head: in evaluation mode.
        epochs: means over each epoch of `total`, `ce`, every term raw (`mse`) and weighted (`mse_w`).
        largest_share: {term: the largest share of the cross entropy that the weighted term had in a step}.
    """

    head: Head
    epochs: list[Terms]
    largest_share: Mapping[str, float]


def fit(data: TrainingFeatures, chosen: TuneParams, weights: Weights | None, seed: int) -> Fitted:
    """Train a head: NMTune's with the weights of its terms, or the linear probe if there are none.

    Raises:
        ComputationError: the loss is not finite; names the param.
    """
    dims = data.plain.shape[1]
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights is None:
            head: Head = LinearProbe(dims, data.classes)
        else:
            head = NMTuneHead(dims, data.classes, chosen.ratio)
        rate = chosen.probe_learning_rate if weights is None else chosen.learning_rate
        optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=chosen.weight_decay)
        size = min(chosen.batch_size, len(data.labels))
        per_epoch = len(data.labels) // size
        total = per_epoch * chosen.epochs
        epochs: list[Terms] = []
        largest: Terms = dict.fromkeys(NMTUNE_TERMS, 0.0)
        for epoch in range(chosen.epochs):
            order = torch.randperm(len(data.labels))
            sums: Terms = {}
            for number in range(per_epoch):
                rows = order[number * size : (number + 1) * size]
                step = epoch * per_epoch + number
                for group in optimizer.param_groups:
                    group["lr"] = 0.5 * (1 + math.cos(math.pi * step / total)) * rate
                found = _loss(head, data, rows, weights)
                if not torch.isfinite(found["total"]):
                    raise _not_finite(weights)
                optimizer.zero_grad()
                found["total"].backward()
                optimizer.step()
                values = {name: float(value.detach()) for name, value in found.items()}
                sums = {name: sums.get(name, 0.0) + value for name, value in values.items()}
                for name in NMTUNE_TERMS:
                    largest[name] = max(largest[name], abs(values.get(f"{name}_w", 0.0)) / max(values["ce"], 1e-12))
            epochs.append({name: value / per_epoch for name, value in sums.items()})
        return Fitted(head.eval(), epochs, largest)


def _loss(head: Head, data: TrainingFeatures, rows: Tensor, weights: Weights | None) -> dict[str, Tensor]:
    y = data.labels[rows]
    if weights is None:
        ce = torch.nn.functional.cross_entropy(head(data.plain[rows])[1], y)
        return {"ce": ce, "total": ce}
    assert data.views is not None
    count = data.views.shape[1]
    first = torch.randint(count, (len(rows),))
    second = (first + torch.randint(1, count, (len(rows),))) % count  # another one
    f = torch.cat([data.views[rows, first], data.views[rows, second]])  # [2 B, D]
    z, logits = head(f)
    if not torch.isfinite(z).all():  # of which there are no singular values
        raise _not_finite(weights)
    size = len(rows)
    return nmtune_loss(f[:size], z[:size], z[size:], logits, y, weights)


def _not_finite(weights: Weights | None) -> ComputationError:
    rate = "probe_learning_rate" if weights is None else "learning_rate"
    return ComputationError(f"tune: the loss of a head is not finite: lower tune.{rate}")


@torch.inference_mode()
def applied(head: Head, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(z [N, D], scores [N, C]) of features as a model gives them."""
    with one_thread():
        z, logits = head.eval()(scaled(features))
    return z.numpy(), logits.numpy()


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread: sums in a fixed order, and for matrices so small also the quickest."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
