"""A teacher of the right size for counting what a recipe costs, while the real one is not trained or not opened yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from flame_core.data.sidecars import MANIFEST, SidecarManifest
from flame_core.digest import write_json
from flame_core.objectives.clip_teacher import TEACHER_TEXTS, open_teaching_model
from flame_core.params import TrainParams
from flame_core.text.jobs import facet_count
from flame_core.training.cost import PICTURES
from flame_core.vision.tower import CONFIG, WEIGHTS, ImageTower
from flame_core.weights import save_weights


class StandIn(NamedTuple):
    """A teacher's folder, and values of `PICTURES` samples by sidecar that belong to it."""

    folder: Path
    extra: dict[str, Tensor]


@contextmanager
def untrained_teacher(recipe: TrainParams, hidden: int, facets: Sequence[str]) -> Iterator[StandIn]:
    """The model of a recipe with random weights, for texts of `hidden` dimensions with these names."""
    with TemporaryDirectory() as made:
        folder = Path(made)
        save_weights(ImageTower(recipe.model, hidden, facet_count(facets)), folder / WEIGHTS)
        write_json(folder / CONFIG, {"recipe": recipe.dump(), "hidden": hidden, "facets": list(facets)})
        yield StandIn(folder, {})


@contextmanager
def foreign_teacher(source: str) -> Iterator[StandIn]:
    """The model of a source such as `transformers:<folder>`, with random texts.

    Raises:
        InputError: it cannot be read.
        ResourceError: it cannot be fetched, or a package is missing.
    """
    model = open_teaching_model(source)
    dim = model.picture_side().dim
    manifest = SidecarManifest(
        name=TEACHER_TEXTS,
        stage="train",
        dtype="float16",
        shape=(dim,),
        index="",
        origin={"source": source, "teacher": dict(model.identity)},
        files={},
    )
    with TemporaryDirectory() as made:
        write_json(Path(made) / MANIFEST, manifest.model_dump(mode="json"))
        yield StandIn(Path(made), {TEACHER_TEXTS: F.normalize(torch.randn(PICTURES, dim), dim=-1)})
