"""Matching of features: each picture's feature comes near its teacher's of the same crop.

    L = 1/B * sum_i | n(P f_i) - n(f'_i) |^2,   n(x) = x / |x|

f is a feature of the student, f' of the teacher, and P a linear map that is learned with the student if their sizes
differ, else the identity. It needs no texts and no other pictures, so it stands beside a loss that compares with texts.
(The feature distillation of CLIP-KD, arXiv 2307.12732, which takes the mean over the D numbers of a feature; here it is
their sum, so a weight w here is D w there.)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.objectives.batch import Batch, Features
from flame_core.objectives.teacher import taught
from flame_core.objectives.term import Needs, Setup, Term
from flame_core.params import FeatureParams, TrainParams
from flame_core.processes.ranks import Ranks
from flame_core.vision.tower import ImageTower


class FeatureMatching(Term):
    """Each rank computes the share of its own pictures; of z, only z_0 is used."""

    @classmethod
    def needs(cls, params: FeatureParams) -> Needs:
        read = frozenset({params.feature})
        return Needs(reads=read, taught=read)

    @classmethod
    def faults(cls, params: FeatureParams, recipe: TrainParams, tower: ImageTower) -> Iterator[str]:
        if params.feature != "z" and recipe.teacher is not None and recipe.teacher.model is not None:
            yield f"feature {params.feature}: a model of another project shows only its z as a teacher: match feature z"
        if params.feature == "z" and recipe.model.head == "lexical":
            yield "feature z: model.head lexical gives weights of words, and the teacher vectors: match pooled or cls"

    def __init__(self, params: FeatureParams, setup: Setup) -> None:
        super().__init__(params, setup)
        self._feature = params.feature
        own = setup.hidden if params.feature == "z" else setup.tower.backbone.num_features
        theirs = setup.taught[params.feature]
        self.map = nn.Linear(own, theirs, bias=False) if own != theirs else nn.Identity()

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        own = features[self._feature][:, 0]
        with torch.autocast(own.device.type, enabled=False):
            found = self.map((own[:, 0] if self._feature == "z" else own).float())
            wanted = batch.extra[taught(self._feature)].detach()
            unlike = (F.normalize(found, dim=-1) - F.normalize(wanted, dim=-1)).square().sum(dim=-1)
            return {"feature": unlike.sum() / (len(batch) * ranks.world)}
