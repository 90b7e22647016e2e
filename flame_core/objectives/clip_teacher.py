"""A CLIP or SigLIP of another project as a teacher: its pictures online, its texts as a second bank.

Its vectors are in a space of their own, so the teacher's affinities are computed there, with its own vectors of the
same captions. The student's texts remain those of the frozen LLM. A training stores the captions' vectors first, in a
folder that is a sidecar (`training.teacher_texts`), and this teacher is opened from that folder:

    manifest.json       `origin.source` names the model: transformers:<...> or open_clip:<...>
    00000.safetensors   its vectors of the captions of data/shards/train/00000.tar, [rows, E]
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from flame_core.data.sidecars import Sidecar
from flame_core.errors import InputError
from flame_core.objectives.teacher import Teacher
from flame_core.suite.models.model import Model, NotOffered, PictureSide, open_model
from flame_core.vision.views import MEAN, STD

TEACHER_TEXTS = "teacher-texts"
"""Name of the sidecar, and in `Batch.extra` of the teacher's own vectors of the samples' captions, [b, E]."""


class ClipTeacher(Teacher):
    """The picture side of a dual encoder."""

    mean: Tensor  # of its own preprocessing
    std: Tensor
    our_mean: Tensor  # of the pictures that a training has
    our_std: Tensor

    def __init__(self, side: PictureSide, where: str) -> None:
        weights = sum(weight.numel() for weight in side.module.parameters())
        super().__init__({"z": side.dim}, weights, side.size, where)
        self.module = side.module.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(side.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(side.std)[:, None, None])
        self.register_buffer("our_mean", MEAN)
        self.register_buffer("our_std", STD)
        self.eval()

    def read(self, pictures: Tensor, reads: Collection[str]) -> dict[str, Tensor]:
        return {"z": self.module((pictures * self.our_std + self.our_mean - self.mean) / self.std)}


def open_clip_teacher(folder: Path) -> ClipTeacher:
    """The teacher whose texts lie in this folder.

    Raises:
        InputError: the model is not the one whose texts these are, or cannot be read.
        ResourceError: it cannot be fetched, or a package is missing.
    """
    origin = Sidecar(folder).manifest.origin
    model = open_teaching_model(origin["source"])
    if dict(model.identity) != origin["teacher"]:
        raise InputError(f"{origin['source']} has changed since its texts were stored in {folder}: train again")
    return ClipTeacher(model.picture_side(), origin["source"])


def open_teaching_model(source: str, device: str = "cpu") -> Model:
    """The model of a source such as `transformers:<folder or hub id>`.

    Raises:
        InputError: it cannot be read, its weights have another shape, or it cannot read a training's pictures.
        ResourceError: it cannot be fetched, or a package is missing.
    """
    model = open_model("teacher", source, device)
    try:
        model.picture_side()
    except NotOffered as error:
        raise InputError(f"{source} cannot be a teacher: {error}") from None
    return model
