"""The world of `world.py` with a teacher, a model folder with drawn weights; trainings of a student that is smaller."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from flame_core.digest import write_json
from flame_core.files.weights import save_weights
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.params import TrainParams
from flame_core.processes.ranks import Ranks
from flame_core.training.linked_folders import LinkedFolders
from flame_core.training.loop import Trained, train
from flame_core.vision.tower import ImageTower
from tests.training.world import FACETS, HIDDEN, recipe, samples_of, write_world

SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
LARGE = {"img_size": 24, "patch_size": 8, "embed_dim": 40, "depth": 3, "num_heads": 2, "drop_path_rate": 0.5}


def write_teacher(folder: Path, options: dict | None = None, image_size: int = 24, **config: object) -> Path:
    """A larger tower at another resolution, whose outputs differ from picture to picture."""
    own = recipe(model={"backbone_options": options or LARGE, "image_size": image_size})
    torch.manual_seed(7)
    tower = ImageTower(own.model, HIDDEN, facets=1)
    with torch.no_grad():
        for module in tower.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(3)
    folder.mkdir(parents=True)
    save_weights(tower, folder / WEIGHTS)
    write_json(folder / CONFIG, {"recipe": own.dump(), "hidden": HIDDEN, "facets": FACETS} | config)
    return folder


def write_distilled(folder: Path) -> None:
    write_world(folder)
    write_teacher(folder / "teacher")


def distilled_recipe(drop: float = 0.0, **changes) -> TrainParams:
    """The recipe of these tests with both terms; eps keeps gradients that are rounding errors from becoming steps."""
    model = {"backbone_options": SMALL | {"drop_path_rate": drop}, "image_size": 16}
    optimizer = {"learning_rate": 3e-3, "eps": 1e-3, "weight_decay": 0.1}
    terms = [
        {"name": "affinity", "weight": 0.7, "scale": 20.0, "teacher_scale": 20.0},
        {"name": "feature", "feature": "pooled", "weight": 0.5},
    ]
    links = {"teacher": {"path": "teacher"}}
    base = {"model": model, "optimizer": optimizer, "epochs": 2, "terms": terms, "objective": {"name": "infonce"}}
    return recipe(**base | links | changes)


def train_distilled(ranks: Ranks, folder: Path, checkpoints: Path, params: TrainParams, *recorders) -> Trained:
    return train(
        samples_of(folder, params), params, checkpoints, ranks, *recorders, linked=LinkedFolders(folder / "teacher")
    )
