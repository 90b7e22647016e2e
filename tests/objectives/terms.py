"""A term of an objective by itself: on given vectors, on one rank."""

from __future__ import annotations

from dataclasses import replace

import torch

from flame_core.objectives.batch import Batch
from flame_core.objectives.term import Setup, Term
from flame_core.params import ModelParams
from flame_core.processes.ranks import ALONE
from flame_core.vision.tower import ImageTower

TINY = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}


def setup(batch_size: int) -> Setup:
    tower = ImageTower(ModelParams(backbone_options=TINY, image_size=16), hidden=8, facets=1)
    return Setup(tower, batch_size, samples=24, hidden=8)


def batch_of(facets: torch.Tensor) -> Batch:
    """A batch of grey pictures whose texts have these facet numbers [b, K]."""
    b = len(facets)
    return Batch(
        pictures=torch.zeros(b, 1, 3, 16, 16),
        boxes=torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0]).expand(b, 1, 5),
        texts=torch.zeros(b, facets.shape[1], 1),
        facets=facets,
        rows=torch.arange(b),
        keys=[str(row) for row in range(b)],
    )


def share(term: Term, z: torch.Tensor, t: torch.Tensor, facets: torch.Tensor | None = None) -> torch.Tensor:
    """The only share of a term for z [b, 1 + F, D] of one view each and t [b, K, D]."""
    numbers = torch.ones(t.shape[:2]) if facets is None else facets
    batch = replace(batch_of(numbers), texts=t)
    (value,) = term({"z": z[:, None], "t": t}, batch, ALONE).values()
    return value
