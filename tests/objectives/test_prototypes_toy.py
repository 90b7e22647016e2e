"""ProtoCLIP's gain on made data: 40 classes, of which a picture shows 12 numbers mixed with 36 others.

Texts are fixed vectors near their class. With few steps, CLIP's loss groups pictures of a class only in part; the terms
must add to that, more to the backbone's features (a probe) than to z (zero-shot), as the paper reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.clustering.centroids import Centroids
from flame_core.clustering.spherical import UNIT, first_centroids, nearest, next_centroids, on_sphere
from flame_core.data.sidecars import VALUES
from flame_core.objectives.batch import Moment
from flame_core.objectives.infonce import InfoNCE
from flame_core.objectives.objective import Objective
from flame_core.objectives.prototypes import Prototypes
from flame_core.objectives.term import Setup
from flame_core.params import InfoNCEParams, PrototypesParams
from flame_core.params.training import OptimizerParams
from flame_core.processes.ranks import ALONE
from tests.objectives.terms import batch_of
from tests.training.clustered import write_sidecar

CLASSES, PAIRS, TEXT, INSIDE, OTHERS, WIDTH = 40, 4000, 24, 12, 36, 64
STEPS, BATCH, EPISODE = 400, 32, 20


@dataclass(frozen=True)
class Toy:
    pictures: Tensor  # [N, 48]
    texts: Tensor  # [N, TEXT], unit vectors
    classes: Tensor  # [N]
    names: Tensor  # [CLASSES, TEXT], unit vectors of the classes

    def __getitem__(self, rows: slice) -> Toy:
        return Toy(self.pictures[rows], self.texts[rows], self.classes[rows], self.names)


def made(seed: int, wrong: float, noise: float = 0.4) -> Toy:
    """Pairs for training and as many for testing; a share `wrong` of the texts is of another class."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    centres, names = normal(CLASSES, INSIDE), F.normalize(normal(CLASSES, TEXT), dim=1)
    classes = torch.randint(CLASSES, (2 * PAIRS,), generator=draw)
    shown = torch.cat([centres[classes] + noise * normal(2 * PAIRS, INSIDE), 1.5 * normal(2 * PAIRS, OTHERS)], dim=1)
    wide = INSIDE + OTHERS
    mixed = torch.tanh(shown @ normal(wide, 2 * wide) / wide**0.5) @ normal(2 * wide, wide) / wide**0.5
    told = classes
    if wrong:
        others = torch.randint(CLASSES, (2 * PAIRS,), generator=draw)
        told = torch.where(torch.rand(2 * PAIRS, generator=draw) < wrong, others, classes)
    texts = F.normalize(names[told] + 0.15 * normal(2 * PAIRS, TEXT), dim=1)
    return Toy(mixed, texts, classes, names)


def clusters_of(texts: Tensor, folder: Path, seed: int) -> Path:
    """Labels of the texts by the k-means of `flame cluster`, without a reduction."""
    grid = on_sphere(texts.double().numpy()).astype(np.int16)
    centroids = first_centroids(grid, CLASSES, seed)
    for _ in range(20):
        centroids = next_centroids(grid, centroids)
    labels, _ = nearest(grid, centroids)
    unit = F.normalize(torch.from_numpy(centroids / UNIT), dim=1).float().numpy()
    counts = np.bincount(labels, minlength=CLASSES)
    write_sidecar(folder, labels, Centroids(unit, counts, np.zeros(TEXT, np.float32), np.eye(TEXT, dtype=np.float32)))
    return folder


def accuracies(seed: int, mode: str | None, folder: Path, wrong: float = 0.0) -> tuple[float, float]:
    """(zero-shot, probe) of a student after a training with the term in this mode, or without."""
    toy = made(seed, wrong)
    train, test = toy[:PAIRS], toy[PAIRS:]
    torch.manual_seed(seed)
    inside = INSIDE + OTHERS
    backbone = nn.Sequential(nn.Linear(inside, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, WIDTH))
    projector = nn.Linear(WIDTH, TEXT)
    tower: Any = SimpleNamespace(backbone=SimpleNamespace(num_features=WIDTH))
    folder = clusters_of(train.texts, folder, seed)
    setup = Setup(tower, BATCH, PAIRS, TEXT, sidecars={"clusters": folder})
    terms: dict[str, Any] = {"infonce": InfoNCE(InfoNCEParams(), setup)}
    if mode is not None:
        params = PrototypesParams(mode=cast(Any, mode), hidden=128, dim=32, episode_steps=EPISODE)
        terms["prototypes"] = Prototypes(params, setup)
    objective = Objective(terms)
    own = [{"params": [*backbone.parameters(), *projector.parameters()], "weight_decay": 0.01, "multiplier": 1.0}]
    optimizer = torch.optim.AdamW([*own, *objective.groups(OptimizerParams())], lr=1e-3)
    labels = load_file(folder / "00000.safetensors")[VALUES]
    draw = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        rows = torch.randint(PAIRS, (BATCH,), generator=draw)
        pooled = backbone(train.pictures[rows])
        z = F.normalize(projector(F.relu(pooled)), dim=1)
        features = {"pooled": pooled[:, None], "z": z[:, None, None], "t": train.texts[rows][:, None]}
        batch = batch_of(torch.ones(BATCH, 1)).with_extra(clusters=labels[rows])
        optimizer.zero_grad()
        torch.stack(list(objective(features, batch, ALONE).values())).sum().backward()
        optimizer.step()
        objective.after_step(tower, features, batch, Moment(step, STEPS, PAIRS // BATCH), ALONE)
    with torch.no_grad():
        of_train, of_test = backbone(train.pictures), backbone(test.pictures)
        z = F.normalize(projector(F.relu(of_test)), dim=1)
        zero_shot = ((z @ toy.names.T).argmax(dim=1) == test.classes).double().mean().item()
        means = torch.stack([F.normalize(of_train, dim=1)[train.classes == k].mean(dim=0) for k in range(CLASSES)])
        found = (F.normalize(of_test, dim=1) @ F.normalize(means, dim=1).T).argmax(dim=1)
        return zero_shot, (found == test.classes).double().mean().item()


@pytest.mark.slow
def test_prototypes_add_to_clips_loss_where_captions_are_wrong(tmp_path):
    """Three in ten. Means over pictures by their captions' clusters outvote single wrong captions."""
    gains = [
        np.subtract(*(accuracies(seed, mode, tmp_path / f"{seed}-{mode}", wrong=0.3) for mode in ("pbt", None)))
        for seed in range(4)
    ]
    assert np.mean(gains, axis=0).min() > 0.015  # (zero-shot, probe)


@pytest.mark.slow
def test_both_modes_add_to_clips_loss(tmp_path):
    gains = {"pbt": [], "direct": []}
    for seed in range(4):
        without = np.array(accuracies(seed, None, tmp_path / f"{seed}"))
        for mode, found in gains.items():
            found.append(np.array(accuracies(seed, mode, tmp_path / f"{seed}-{mode}")) - without)
    means = {mode: np.mean(found, axis=0) for mode, found in gains.items()}  # (zero-shot, probe)
    assert means["pbt"][1] > 0.015
    assert means["pbt"][0] > 0.01 and means["direct"].min() > 0.01
    assert means["pbt"][1] > means["direct"][1]  # the pictures' own space serves the backbone more
