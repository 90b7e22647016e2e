"""Opens the tower that `codes.tower` names, and tells which files its tokens follow from."""

from __future__ import annotations

from pathlib import Path

from flame_core import gates
from flame_core.codes.patch_tokens import PatchTower, TimmTower, TrainedTower
from flame_core.errors import InputError
from flame_core.graph.section_stages import linked_place
from flame_core.layout import Layout
from flame_core.params import CodesParams
from flame_core.verification import DIGESTS


def tower_folder(chosen: CodesParams, layout: Layout) -> Path | None:
    """The model folder of the tower; None of a timm backbone.

    Raises:
        InputError: there is no such folder.
        GateError: its training failed a blocking check.
    """
    tower = chosen.tower
    if tower.timm is not None:
        return None
    folder = layout.model(tower.recipe) if tower.recipe else linked_place(layout, tower.path or "")
    if not folder.is_dir():
        raise InputError(f"codes.tower: {folder} does not exist; name the folder of a model that `flame train` made")
    if (folder / gates.CHECKS).is_file():
        gates.require(folder)
    return folder


def to_verify(folder: Path | None) -> dict[Path, list[str]]:
    """{folder: patterns} of the tower's files, if it comes with digests."""
    return {folder: ["*"]} if folder is not None and (folder / DIGESTS).is_file() else {}


def open_tower(chosen: CodesParams, layout: Layout, device: str) -> PatchTower:
    """The tower.

    Raises:
        InputError: it cannot be loaded, or weights that are named are not there.
        ParamsError: the LLM's words are asked of a tower that does not project patches.
    """
    folder, in_words = tower_folder(chosen, layout), chosen.codebook == "words"
    if folder is not None:
        return TrainedTower(chosen.tower.recipe or folder.name, folder, device, in_words=in_words)
    source = chosen.tower.timm or ""
    file = chosen.tower.file
    weights = None if file is None else linked_place(layout, file)
    if weights is not None and not weights.is_file():
        raise InputError(f"codes.tower.timm: {weights} does not exist")
    return TimmTower(source, weights, device)
