"""A teacher's features of every picture's crops, computed once, before the first step (`teacher.copies`).

The crop that a sample has in an epoch follows from (seed, epoch, key), as in every training (`training.loader`). So its
first crops can be cut here, shown to the teacher, and replayed: epoch e shows crop e mod `copies`. With as many copies
as epochs, each step sees what it would see with the teacher beside it. Float32 vectors differ only by what an order of
additions changes, as batches here are not those of the training.

The work cache has a unit for each shard and crop, so a killed run continues where it stopped, and more copies only add
to those that are there. `objectives.stored_teacher` describes the folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flame_core.data.key_selection import keys_digest
from flame_core.data.shards import Index
from flame_core.data.sidecars import gather_sidecar, write_values
from flame_core.digest import json_bytes
from flame_core.files.whole_files import put
from flame_core.layout import Layout
from flame_core.objectives import recipe_needs
from flame_core.objectives.stored_teacher import ABOUT, AboutVectors, StoredVectors, crop_name, read_about
from flame_core.objectives.teacher import Teacher, open_teacher, taught
from flame_core.params import InfoNCEParams, TrainParams
from flame_core.reporting import progress
from flame_core.settings import settings
from flame_core.text.store import Drawn
from flame_core.training.loader import TrainingSamples, create_loader
from flame_core.training.prefetch import batches_on
from flame_core.training.teacher_folders import undamaged
from flame_core.verification import read_digests
from flame_core.work import Unit, UnitRecord, WorkCache

TEACHER_VECTORS = "teacher-vectors"  # in the work cache
_BATCH = 256  # pictures that the teacher sees at once


def crop_origin(recipe: TrainParams) -> dict[str, Any]:
    """What the crops and the features of a recipe follow from, beside pictures and teacher."""
    return {
        "seed": recipe.seed,
        "augmentation": recipe.augmentation.model_dump(mode="json"),
        "image_size": recipe.model.image_size,
        "decoder": recipe.decoder,
        "precision": recipe.precision,
        "features": sorted(recipe_needs(recipe).taught),
    }


def store_teacher_vectors(
    layout: Layout, recipe: TrainParams, index: Index, selected: Index, teacher: Path, identity: Mapping[str, Any]
) -> Path:
    """The folder with the teacher's features of the selected samples, computed as far as it is not there.

    Args:
        layout: of the run.
        recipe: fitted; `teacher.copies` says how many crops there are, at most one per epoch.
        index: all rows of the training split.
        selected: those that are trained on; the others' values are 0.
        teacher: the folder from which the teacher is opened.
        identity: digests of the teacher's files.

    Raises:
        InputError: the teacher or a picture cannot be read, or what is stored is of another teacher or augmentation.
    """
    crops = min(recipe.crops or 1, int(recipe.epochs))
    origin = {"teacher": dict(identity), **crop_origin(recipe)}
    cache = WorkCache(layout.work, "train")
    about = {"crops": crops, "index": index.digest(), "selected": keys_digest(selected)}
    folder = layout.work / TEACHER_VECTORS / cache.digest({TEACHER_VECTORS: origin, **about})
    if not ((folder / ABOUT).is_file() and undamaged(folder, crop_folders)):
        _Storing(recipe, layout, index, selected, cache, origin).into(folder, crops, teacher)
    StoredVectors(folder).require(index, origin)
    return folder


def crop_folders(folder: Path) -> list[Path]:
    """The sidecars in a folder of stored vectors."""
    return [folder / crop_name(number) for number in range(read_about(folder).crops)]


@dataclass(frozen=True)
class _Storing:
    recipe: TrainParams
    layout: Layout
    index: Index
    selected: Index
    cache: WorkCache
    origin: dict[str, Any]

    def into(self, folder: Path, crops: int, source: Path) -> None:
        """Fill the folder; the file that makes it whole comes last."""
        teacher = open_teacher(source)
        units = self._units(crops, teacher)
        for crop in range(crops):
            own = {shard: unit for (number, shard), unit in units.items() if number == crop}
            origin = {"crop": crop, **self.origin}
            gather_sidecar(folder / crop_name(crop), self.layout.state, own, self.index, "train", origin)
        about = AboutVectors(
            sizes={name: teacher.sizes[name] for name in self.origin["features"]},
            weights=teacher.weights,
            image_size=teacher.image_size,
            where=teacher.where,
            crops=crops,
            origin=self.origin,
        )
        put(folder / ABOUT, json_bytes(about.model_dump(mode="json")))

    def _units(self, crops: int, teacher: Teacher) -> dict[tuple[int, str], Unit]:
        """The unit of each crop and shard; the pictures of those that are missing are read by one loader."""
        numbers = self._numbers()
        digests = read_digests(self.layout.shards)
        rows_of = self._rows()
        inputs = {
            (crop, shard): self.cache.digest(
                {
                    TEACHER_VECTORS: self.origin,
                    "crop": crop,
                    "shard": digests[shard],
                    "rows": rows_of[shard].tolist() if len(self.selected) < len(self.index) else None,
                }
            )
            for crop in range(crops)
            for shard in numbers
        }
        units = self.cache.find_all(inputs)
        missing = [each for each in inputs if each not in units]
        parts = {each: _parts(each[0], numbers[each[1]]) for each in missing}
        read = self._features([part for each in missing for part in parts[each]], teacher)
        sizes = self.index.shard_sizes()
        with progress("teacher's vectors", sum(len(numbers[shard]) for _, shard in missing), "pictures") as bar:
            for each in missing:
                rows = rows_of[each[1]]

                def write(folder: Path, each: tuple[int, str] = each, rows: np.ndarray = rows) -> UnitRecord:
                    found = [next(read) for _ in parts[each]]
                    values = np.zeros((sizes[each[1]], self._width(teacher)), np.float32)
                    if found:
                        values[rows] = torch.cat(found).numpy()
                    write_values(folder, crop_name(each[0]), values)
                    return UnitRecord({"pictures": len(rows)})

                units[each] = self.cache.compute(inputs[each], write)
                bar.advance(len(rows))
        return units

    def _width(self, teacher: Teacher) -> int:
        return sum(teacher.sizes[name] for name in self.origin["features"])

    def _numbers(self) -> dict[str, range]:
        """The numbers of the selected samples of each shard, in the order of their rows."""
        spans = self.selected.spans()
        return {shard: spans.get(shard, range(0)) for shard in sorted(self.index.shard_sizes())}

    def _rows(self) -> dict[str, np.ndarray]:
        """The rows of the selected samples of each shard."""
        rows = self.selected.table.column("row").to_numpy()
        return {shard: rows[own.start : own.stop] for shard, own in self._numbers().items()}

    @torch.no_grad()
    def _features(self, batches: list[Batches], teacher: Teacher) -> Iterator[Tensor]:
        """The teacher's joined features of these batches, [b, E], on the CPU."""
        device = settings().torch_device()
        torch.set_num_threads(self.recipe.cpu_threads)
        teacher.to(device).eval()
        alone = {"objective": InfoNCEParams(), "terms": [], "teacher": None, "sidecars": {}, "noise": 0.0}
        recipe = self.recipe.model_copy(update={**alone, "texts_per_image": 1})  # one view, which is the same
        samples = TrainingSamples(self.selected, self.layout.shards, _NoTexts(), [0], recipe)
        loader = create_loader(samples, batches, settings().decoding_processes(1), pin_memory=device == "cuda")
        features = self.origin["features"]
        for batch in batches_on(device, loader):
            with torch.autocast(device, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
                seen = teacher.look(batch, features, None)
            yield torch.cat([seen.extra[taught(name)] for name in features], dim=1).cpu()


Batches = list[tuple[int, int]]  # (epoch, number) of the samples of a batch


def _parts(crop: int, numbers: range) -> list[Batches]:
    """Batches of (epoch, number), in which these samples have that crop."""
    return [[(crop, number) for number in numbers[start : start + _BATCH]] for start in range(0, len(numbers), _BATCH)]


class _NoTexts:
    """Texts of a training in which only the teacher looks at pictures."""

    hidden = 1
    files_per_shard = 0

    def __init__(self) -> None:
        self.facets = ["raw/1"]

    def read(self, samples: Sequence[Drawn]) -> Tensor:
        return torch.zeros(len(samples), 1, 1)

    def encoder(self) -> None:
        return None

    def save(self, encoder: nn.Module | None, folder: Path) -> None:
        """Nothing."""
