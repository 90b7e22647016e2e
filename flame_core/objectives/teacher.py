"""A teacher: a trained model whose features of the same pictures a recipe learns from.

An objective has at most one, and runs it once per step, without gradient, for all terms (`Needs.taught`). It comes from
files, so it is never trained, never in train mode, and in no checkpoint (`Objective.frozen`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.data.sidecars import MANIFEST
from flame_core.errors import ParamsError
from flame_core.objectives.batch import Batch
from flame_core.vision.image_encoder import load_tower
from flame_core.vision.tower import ImageTower, require_features


def taught(name: str) -> str:
    """Where in `Batch.extra` the teacher's feature of that name is, one row per sample."""
    return f"teacher/{name}"


class Teacher(nn.Module):
    """Base of all teachers.

    Attributes:
        sizes: dimensions of each feature that it gives, by name: `z` in the space of its texts, `pooled` and `cls` of
            its backbone.
        weights: number of weights of its backbone.
        image_size: side of the pictures that it sees.
        where: the folder or source that it comes from, for error messages.
    """

    def __init__(self, sizes: Mapping[str, int], weights: int, image_size: int, where: str) -> None:
        super().__init__()
        self.sizes, self.weights, self.image_size, self.where = dict(sizes), weights, image_size, where

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def read(self, pictures: Tensor, reads: Collection[str]) -> dict[str, Tensor]:
        """The named features of pictures [b, 3, S, S] of its own side, normalised as for our towers."""
        raise NotImplementedError

    @torch.no_grad()
    def look(self, batch: Batch, reads: Collection[str], at_once: int | None) -> Batch:
        """The batch with the named features of each picture's first view (`taught`), computed `at_once` at a time."""
        parts = [self.read(self._fitted(part.pictures[:, 0]), reads) for part in batch.split(at_once or len(batch))]
        return batch.with_extra(**{taught(name): torch.cat([part[name] for part in parts]).float() for name in reads})

    def _fitted(self, pictures: Tensor) -> Tensor:
        if pictures.shape[-1] == self.image_size:
            return pictures
        side = (self.image_size, self.image_size)
        return F.interpolate(pictures.float(), side, mode="bicubic", antialias=True, align_corners=False)


class TowerTeacher(Teacher):
    """The image tower of a model folder of this project; its texts are those of the recipe that learns from it."""

    def __init__(self, tower: ImageTower, hidden: int, image_size: int, where: str) -> None:
        width = tower.backbone.num_features
        sizes = {"z": hidden, "pooled": width}
        if getattr(tower.backbone, "cls_token", None) is not None:
            sizes["cls"] = width
        super().__init__(sizes, backbone_weights(tower), image_size, where)
        self.tower = tower.requires_grad_(False)
        self.eval()

    def read(self, pictures: Tensor, reads: Collection[str]) -> dict[str, Tensor]:
        found = self.tower(pictures, reads)
        return {name: value[:, 0] if name == "z" else value for name, value in found.items()}


def open_teacher(folder: Path) -> Teacher:
    """The teacher in a folder: a model of this project, texts of a foreign one (`clip_teacher`), or stored vectors.

    Raises:
        InputError: a file is missing, or the weights do not fit the config.
        ResourceError: a foreign model cannot be fetched, or a package is missing.
    """
    if (folder / MANIFEST).is_file():
        from flame_core.objectives.clip_teacher import open_clip_teacher

        return open_clip_teacher(folder)
    if (folder / "teacher.json").is_file():
        from flame_core.objectives.stored_teacher import open_stored_teacher

        return open_stored_teacher(folder)
    tower, config = load_tower(folder)
    return TowerTeacher(tower, config["hidden"], config["recipe"]["model"]["image_size"], str(folder))


def backbone_weights(tower: ImageTower) -> int:
    """Number of weights of the backbone, by which students and teachers are compared."""
    return sum(weight.numel() for weight in tower.backbone.parameters())


def require_teacher(teacher: Teacher, reads: Collection[str], student: ImageTower) -> None:
    """Refuse a teacher that lacks a feature, or that is smaller than its student.

    Raises:
        ParamsError: says what is missing, or both sizes.
    """
    if missing := sorted(set(reads) - teacher.sizes.keys()):
        if isinstance(teacher, TowerTeacher):
            require_features(teacher.tower.backbone, missing, f"{teacher.where}: a term")
        raise ParamsError(
            f"{teacher.where} gives {', '.join(teacher.sizes)}, and a term reads {', '.join(missing)} "
            "of it: choose another feature",
            key="train.teacher",
        )
    if message := larger(backbone_weights(student), teacher.weights):
        raise ParamsError(message, key="train.model")


def larger(student: int, teacher: int) -> str | None:
    """Why backbones of so many weights are not student and teacher; None if they may be."""
    if student <= teacher:
        return None
    return (
        f"the student's backbone has {student:,} weights, more than its teacher's {teacher:,}: make model smaller "
        "(such as backbone_options.embed_dim or depth), or take a larger teacher"
    )
