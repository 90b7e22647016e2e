"""Linear maps that bring pictures and their captions together, fitted on some pairs and used on others.

This is the alignment probing of SAIL (arXiv 2412.04616): both models stay frozen, and only a linear map behind each, or
behind one of them, learns with a contrastive loss. What it reaches on pairs that it has not seen says how well the
two models fit one another.

Vectors are first centred on the mean of the fitted pairs and reduced to their 256 largest principal components, with
one factor. So models of any width have equally many weights, and a map of a few hundred pairs is not mostly learned
by heart: with all components, held-out recall was lower on the demo. The steps are few for the same reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.utils.extmath import randomized_svd
from torch import Tensor
from torch.nn import functional as F

from flame_core.params.alignment import Sides

COMPONENTS = 256  # kept of either side, and dimensions of the common space
EPOCHS, BATCH, RATE, DECAY = 20, 512, 5e-3, 0.1
_FIRST_SCALE, _LAST_SCALE = 1 / 0.07, 100.0  # of cosines, as in CLIP


@dataclass(frozen=True)
class Components:
    """The principal components of vectors: mean [D], and directions [D, r] with one factor."""

    mean: Tensor
    directions: Tensor

    @classmethod
    def of(cls, vectors: np.ndarray) -> Components:
        """Those of vectors [N, D]; r is at most `COMPONENTS`."""
        x = np.asarray(vectors, np.float32)
        mean = x.mean(axis=0)
        _, sizes, directions = randomized_svd(x - mean, min(COMPONENTS, *x.shape), random_state=0)
        kept = max(1, int((sizes > 1e-6 * sizes[0]).sum()))
        length = max(float(np.sqrt((sizes[:kept] ** 2).sum() / len(x))), 1e-12)
        return cls(torch.from_numpy(mean), torch.from_numpy(directions[:kept].T / length))

    def __call__(self, vectors: np.ndarray) -> Tensor:
        """[N, r], of mean squared length 1 over the vectors that they were taken of."""
        return (torch.from_numpy(np.asarray(vectors, np.float32)) - self.mean) @ self.directions


@dataclass(frozen=True)
class Maps:
    """Weights [r, d] of either side; None: this side stays as it is."""

    pictures: Tensor | None
    texts: Tensor | None

    def __call__(self, pictures: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors [N, d] of both sides in the common space."""
        z = pictures if self.pictures is None else pictures @ self.pictures
        t = texts if self.texts is None else texts @ self.texts
        return F.normalize(z, dim=-1), F.normalize(t, dim=-1)


def fit_maps(pictures: Tensor, texts: Tensor, sides: Sides, seed: int) -> Maps:
    """Maps that tell each picture's caption from the others': InfoNCE in both directions.

    Args:
        pictures: components [N, r].
        texts: components [N, s] of the captions, row by row.
        sides: which side gets a map; one side's map leads into the other's components.
        seed: of the first weights and of the batches.
    """
    draw = torch.Generator().manual_seed(seed)
    if sides == "both":
        maps = Maps(*(_random(each.shape[1], draw) for each in (pictures, texts)))
    elif sides == "texts":
        maps = Maps(None, _towards(texts, pictures))
    else:
        maps = Maps(_towards(pictures, texts), None)
    scale = torch.tensor(math.log(_FIRST_SCALE), requires_grad=True)
    weights = [each for each in (maps.pictures, maps.texts) if each is not None]
    optimizer = torch.optim.AdamW(
        [{"params": weights}, {"params": [scale], "weight_decay": 0.0}], RATE, weight_decay=DECAY
    )
    count = len(pictures)
    batches = max(1, round(count / BATCH))
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * batches)
    for _ in range(EPOCHS):
        for rows in torch.randperm(count, generator=draw).tensor_split(batches):
            z, t = maps(pictures[rows], texts[rows])
            logits = scale.clamp(max=math.log(_LAST_SCALE)).exp() * z @ t.T
            own = torch.arange(len(rows))
            loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
    return Maps(*(None if each is None else each.detach() for each in (maps.pictures, maps.texts)))


def _random(rows: int, draw: torch.Generator) -> Tensor:
    bound = 1 / math.sqrt(rows)
    return torch.empty(rows, COMPONENTS).uniform_(-bound, bound, generator=draw).requires_grad_(True)


def _towards(mapped: Tensor, other: Tensor) -> Tensor:
    """The covariance [r, s] of two sides, of mean squared weight 1 / 3r: random weights would take far more steps."""
    weights = mapped.T @ other / len(mapped)
    size = weights.square().mean().sqrt().clamp(min=1e-12)
    return (weights / size / math.sqrt(3 * len(weights))).requires_grad_(True)


def hits(pictures: Tensor, texts: Tensor, recall_at: list[int]) -> np.ndarray:
    """[K, N], how often pair n is found among the first k, of its two queries: 0, 0.5 or 1.

    Queries are a picture among all texts, and a text among all pictures; both [N, d] are unit vectors. Equal
    similarities count against the pair, so vectors that are all equal find nothing.
    """
    similar = pictures @ texts.T
    own = similar.diagonal()
    ranks = torch.stack([(similar >= own[:, None]).sum(dim=1), (similar >= own).sum(dim=0)])  # 1 is first
    return np.stack([(ranks <= k).float().mean(dim=0).numpy() for k in recall_at])
