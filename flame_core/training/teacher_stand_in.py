"""A teacher of the right size for counting what a recipe costs: the real one is not trained, opened or stored yet."""

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
from flame_core.files.weights import save_weights
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.objectives import recipe_needs
from flame_core.objectives.clip_teacher import TEACHER_TEXTS, open_teaching_model
from flame_core.objectives.stored_teacher import ABOUT, AboutVectors
from flame_core.objectives.teacher import open_teacher, taught
from flame_core.params import TrainParams
from flame_core.text.jobs import facet_count
from flame_core.training.cost import PICTURES
from flame_core.training.cost_figures import StoringCost
from flame_core.training.counting import counted
from flame_core.vision.tower import ImageTower


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


@contextmanager
def stored_teacher(recipe: TrainParams, teacher: StandIn, images: int) -> Iterator[tuple[StandIn, StoringCost]]:
    """A teacher whose random vectors are stored, and what it costs to store them for so many pictures.

    Raises:
        InputError: the teacher cannot be read.
    """
    features = sorted(recipe_needs(recipe).taught)
    known = open_teacher(teacher.folder)
    crops = min(recipe.crops or 1, recipe.schedule(images).epochs)
    sizes = {name: known.sizes[name] for name in features}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        seen = counted(lambda: known.read(torch.randn(1, 3, known.image_size, known.image_size), features))
    cost = StoringCost(seen.flops * images * crops, 4 * sum(sizes.values()) * images * crops)
    about = AboutVectors(
        sizes=sizes, weights=known.weights, image_size=known.image_size, where=known.where, crops=crops, origin={}
    )
    with TemporaryDirectory() as made:
        write_json(Path(made) / ABOUT, about.model_dump(mode="json"))
        vectors = {taught(name): F.normalize(torch.randn(PICTURES, size), dim=-1) for name, size in sizes.items()}
        yield StandIn(Path(made), teacher.extra | vectors), cost
