"""A method only for tests, in as few lines as possible: each view's feature, through a head with batch statistics,
must find the feature of the other view from the tower's moving average."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from flame_core.objectives import term_classes
from flame_core.objectives.moving_average import MovingAverage
from flame_core.objectives.term import Needs, Term
from flame_core.params import TermParams, TrainParams
from flame_core.processes.ranks import Ranks
from flame_core.training.loop import Trained, train
from tests.training.world import recipe, samples_of

PLAIN = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


class PastParams(TermParams):
    name: Literal["past"] = "past"


class Past(Term):
    @classmethod
    def needs(cls, params):
        return Needs(views=2, reads=frozenset({"pooled"}))

    def __init__(self, params, setup):
        super().__init__(params, setup)
        width = setup.tower.backbone.num_features
        self.past = MovingAverage(setup.tower)
        self.at_once = setup.micro_batch_size
        self.head = nn.Sequential(nn.Linear(width, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, width))

    def prepare(self, batch, tower, at, ranks):
        def pooled(part):
            found = self.past(part.pictures.flatten(0, 1), ("pooled",))["pooled"]
            return found.unflatten(0, part.pictures.shape[:2])

        return batch.with_extra(past=batch.in_parts(pooled, self.at_once))

    def forward(self, features, batch, ranks):
        everyone = ranks.gather(features["pooled"].float())  # [B, 2, C]
        found = self.head(everyone.flatten(0, 1)).view_as(everyone)[ranks.rank * len(batch) :][: len(batch)]
        unlike = 1 - F.cosine_similarity(found, batch.extra["past"].flip(1), dim=-1)
        return {"unlike": unlike.sum() / everyone.shape[:2].numel()}

    def after_step(self, tower, features, batch, at, ranks):
        self.past.update(tower, 0.8)

    def scalars(self):
        average = sum(weight.double().abs().sum().item() for weight in self.past.parameters())
        return {"average": average, "seen": self.head[1].running_mean.double().sum().item()}


def past_recipe(drop: float = 0.0, **changes) -> TrainParams:
    """The recipe of these tests with the term; eps keeps gradients that are rounding errors from becoming steps."""
    model = {"backbone_options": PLAIN | {"drop_path_rate": drop}, "image_size": 16}
    optimizer = {"learning_rate": 3e-3, "eps": 1e-3, "weight_decay": 0.1}
    params = recipe(**{"model": model, "optimizer": optimizer, "epochs": 2} | changes)
    return params.model_copy(update={"terms": [PastParams(weight=0.5)]})


def train_past(ranks: Ranks, folder: Path, checkpoints: Path, params: TrainParams, *recorders) -> Trained:
    term_classes()["past"] = Past  # on a rank, in a separate process
    return train(samples_of(folder, params), params, checkpoints, ranks, *recorders)


def state_of(trained: Trained) -> dict[str, torch.Tensor]:
    return dict(trained.tower.state_dict())
