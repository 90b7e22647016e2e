"""The second bank: a foreign teacher's own vectors of the training captions, before the first step.

A sample has one vector, the mean of the unit vectors of those of its captions that the recipe draws from, normalised.
They are computed once, shard by shard, into the work cache, and gathered as a sidecar that only trainings read, so a
killed run continues where it stopped. `objectives.clip_teacher` describes the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flame_core.captions.table import captions_file
from flame_core.data.shards import Index
from flame_core.data.sidecars import gather_sidecar, write_values
from flame_core.digest import file_sha256
from flame_core.layout import Layout
from flame_core.objectives.clip_teacher import TEACHER_TEXTS, open_teaching_model
from flame_core.params import Params, TrainParams
from flame_core.reporting import progress
from flame_core.settings import settings
from flame_core.suite.models.model import Model
from flame_core.suite.models.source import in_project
from flame_core.text.jobs import training_job
from flame_core.text.store import unit
from flame_core.training.teacher_folders import undamaged
from flame_core.work import UnitRecord, WorkCache

_SAMPLES = 256  # whose texts are encoded at once


class TeacherTexts(NamedTuple):
    """A foreign teacher's folder, and its identity: sha256 by file, or of its weights, as JSON."""

    folder: Path
    identity: dict[str, Any]

    @property
    def links(self) -> dict[str, Path]:
        """What the training is linked to by it: the teacher, and its texts as a sidecar."""
        return {"teacher": self.folder, f"sidecars.{TEACHER_TEXTS}": self.folder}


def store_teacher_texts(params: Params, layout: Layout, recipe: TrainParams, index: Index, source: str) -> TeacherTexts:
    """The vectors of all training samples by the model `source`, as a folder in the work cache.

    Args:
        params: say which captions there are.
        layout: of the run.
        recipe: its kinds of captions are encoded.
        index: all rows of the training split.
        source: such as `transformers:<folder or hub id>`; a folder is relative to the project.

    Raises:
        InputError: the model cannot be read, or a sample has no caption.
        ResourceError: the model cannot be fetched, or a package is missing.
    """
    source = in_project(source, layout)
    model = open_teaching_model(source, settings().torch_device())
    kinds = [kind for kind in params.text.train_kinds if kind in recipe.kinds]
    language = params.evaluate.train_language
    cache = WorkCache(layout.work, "train")
    depends = {
        "teacher": dict(model.identity),
        "kinds": kinds,
        "language": language,
        "captions_per_image": params.text.captions_per_image,
    }
    captions = {shard: file_sha256(captions_file(layout.captions, shard)) for shard in index.shard_sizes()}
    inputs = {"source": source, "index": index.digest(), "captions": captions}
    digest = cache.digest({TEACHER_TEXTS: depends, **inputs})
    folder = layout.work / TEACHER_TEXTS / digest / TEACHER_TEXTS
    if folder.is_dir() and undamaged(folder, lambda whole: [whole]):
        return TeacherTexts(folder, dict(model.identity))
    units = {}
    sizes = index.shard_sizes()
    with progress("teacher's texts", sum(sizes.values()), "samples") as bar:
        for shard, rows in sorted(sizes.items()):
            job = training_job(layout.captions, shard, params.text, language)

            def write(unit_folder: Path, job: Any = job, rows: int = rows) -> UnitRecord:
                texts = [[text for kind in kinds for text in _own(job.texts[kind], row, rows)] for row in range(rows)]
                vectors = _encoded(model, texts)
                write_values(unit_folder, TEACHER_TEXTS, vectors.astype(np.float16))
                return UnitRecord({"samples": rows})

            units[shard] = cache.get({TEACHER_TEXTS: depends, "captions": captions[shard]}, write)
            bar.advance(rows)
    origin = {"source": source, **depends}
    gather_sidecar(folder, layout.state, units, index, "train", origin)
    return TeacherTexts(folder, dict(model.identity))


def _own(texts: list[str], row: int, rows: int) -> list[str]:
    """The texts of one of `rows` samples, of a kind with as many texts per sample."""
    count = len(texts) // rows
    return texts[row * count : (row + 1) * count]


def _encoded(model: Model, texts: list[list[str]]) -> np.ndarray:
    """Unit vectors [rows, E]: of each sample's texts the mean of their unit vectors, normalised."""
    found = []
    for start in range(0, len(texts), _SAMPLES):
        part = texts[start : start + _SAMPLES]
        flat = model.texts("raw", [text for own in part for text in own])
        found.append(flat.reshape(len(part), -1, flat.shape[1]).mean(axis=1))
    return unit(np.concatenate(found))
