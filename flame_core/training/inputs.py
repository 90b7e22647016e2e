"""What a recipe trains on besides texts: the selected samples, and values stored for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from flame_core.data.key_selection import select
from flame_core.data.noise_order import NOISE
from flame_core.data.shards import Index
from flame_core.data.sidecars import Sidecar, open_sidecars
from flame_core.objectives import term_needs
from flame_core.objectives.clip_teacher import TEACHER_TEXTS
from flame_core.params import TrainParams
from flame_core.params.training import FEATURES
from flame_core.training.linked_folders import LinkedFolders
from flame_core.training.sampling import Draws, open_draws


class TrainingInputs(NamedTuple):
    """The samples to train on, the sidecars that the recipe's terms read, by name, and how samples are drawn."""

    selected: Index
    sidecars: dict[str, Sidecar]
    draws: Draws


def sidecar_readers(recipe: TrainParams) -> dict[str, tuple[str, ...]]:
    """{what reads them: names of sidecars} of those that a recipe names, for all that reads them."""
    readers = {f"the term {name}": needs.sidecars for name, needs in term_needs(recipe).items()}
    readers |= {"the frozen tower": (FEATURES,)} if recipe.reads_features else {}
    return readers | ({"noise": (NOISE,)} if recipe.noise else {})


def open_inputs(recipe: TrainParams, links: Mapping[str, Path], index: Index, shards: Path) -> TrainingInputs:
    """The selected samples and the sidecars of a recipe.

    Args:
        recipe: its terms determine which sidecars are needed.
        links: what the recipe is linked to, from `flame_core.graph.links.links`.
        index: all rows of the training split.
        shards: their folder, for the reason why a selected key is not in the index.

    Raises:
        ParamsError: a term reads a sidecar that is not given, or a given one is not read by any term.
        InputError: a sidecar or the selection is missing, damaged, or belongs to other samples.
    """
    needed = sidecar_readers(recipe)
    if recipe.teacher is not None and recipe.teacher.model is not None:
        needed["the teacher"] = (TEACHER_TEXTS,)  # which the training stored, not a stage
    sidecars = open_sidecars(needed, LinkedFolders.of(links).sidecars, index)
    selection = links.get("selection")
    selected = index if selection is None else select(index, selection, shards)
    return TrainingInputs(selected, sidecars, open_draws(recipe, links.get("sampling"), selected, index))
