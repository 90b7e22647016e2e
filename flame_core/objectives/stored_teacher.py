"""A teacher whose vectors were stored before the first step, so that it runs once per crop and not in every step.

A training stores them in a folder of the work cache (`training.teacher_vectors`) and opens the teacher from there:

    teacher.json               `StoredVectors`: sizes of the features, what they follow from
    crop-0/, crop-1/, ...      sidecars: of each sample, the features of that crop's first view, joined, [E] in float32
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from flame_core.data.shards import Index
from flame_core.data.sidecars import Sidecar
from flame_core.errors import InputError
from flame_core.objectives.batch import Batch
from flame_core.objectives.teacher import Teacher, taught

ABOUT = "teacher.json"


class AboutVectors(BaseModel):
    """What lies in a folder of stored vectors.

    Attributes:
        sizes: dimensions of each feature, in the order in which they are joined.
        weights: number of weights of the teacher's backbone.
        image_size: side of the pictures that it saw.
        where: the teacher, for error messages.
        crops: how many crops of each picture.
        origin: what the vectors follow from: the teacher, the seed, the augmentation, ...
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sizes: dict[str, int]
    weights: int
    image_size: int
    where: str
    crops: int
    origin: dict[str, Any]


class StoredTeacher(Teacher):
    """Knows what a teacher's features are like; the loader brings their values with each batch."""

    def look(self, batch: Batch, reads: Collection[str], at_once: int | None) -> Batch:
        """The batch, which has the features already."""
        if missing := [name for name in reads if taught(name) not in batch.extra]:
            raise RuntimeError(f"the batch has no stored {', '.join(missing)} of {self.where}")
        return batch


class StoredVectors:
    """The stored features by sample and crop.

    Raises:
        InputError: a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.about = folder, read_about(folder)
        self._crops = [Sidecar(folder / crop_name(number)) for number in range(self.about.crops)]

    @property
    def files_per_shard(self) -> int:
        return len(self._crops)

    def require(self, index: Index, wanted: Mapping[str, Any]) -> None:
        """Refuse vectors of other samples, or of another teacher, seed or augmentation.

        Args:
            index: all rows of the training split.
            wanted: parts of the origin that must be equal.

        Raises:
            InputError: names what differs, with both values.
        """
        own = self.about.origin
        if wrong := [
            f"{key} {own.get(key)!r} instead of {value!r}" for key, value in wanted.items() if own.get(key) != value
        ]:
            raise InputError(
                f"{self.folder}: the stored vectors of {self.about.where} are of {'; '.join(wrong)}: remove this "
                "folder, and the training stores its own"
            )
        for crop in self._crops:
            crop.require_aligned(index)

    def read(self, places: Sequence[tuple[str, int]], crops: Sequence[int]) -> dict[str, Tensor]:
        """{name in `Batch.extra`: [b, E] in float32} of samples, given by shard and row, and of their crops."""
        joined = torch.empty(len(places), sum(self.about.sizes.values()))
        for crop in sorted(set(crops)):
            rows = [number for number, each in enumerate(crops) if each == crop]
            joined[rows] = self._crops[crop].read([places[number] for number in rows])
        parts = joined.split(list(self.about.sizes.values()), dim=1)
        return {taught(name): part for name, part in zip(self.about.sizes, parts, strict=True)}


def crop_name(number: int) -> str:
    """The folder of a crop's vectors."""
    return f"crop-{number}"


def read_about(folder: Path) -> AboutVectors:
    """What lies in a folder of stored vectors.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return AboutVectors.model_validate_json((folder / ABOUT).read_bytes())
    except (OSError, ValidationError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise InputError(
            f"{folder / ABOUT} cannot be read ({why}): remove this folder, and the training stores the vectors again"
        ) from None


def open_stored_teacher(folder: Path) -> StoredTeacher:
    """The teacher whose vectors lie in this folder."""
    about = read_about(folder)
    return StoredTeacher(about.sizes, about.weights, about.image_size, about.where)
