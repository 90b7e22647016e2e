"""A folder of four pictures, and what a source lists that has a table for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flame_core.data.sources import RawPair
from flame_core.data.sources.folder import Folder
from flame_core.data.sources.listing import read_pairs, read_source
from flame_core.params import FolderSource
from flame_core.work import WorkCache
from tests.data.drawings import png

NAMES = [f"{number}.png" for number in range(4)]


def pictures_in(root: Path) -> Path:
    """Make the folder `images` in `root`, with the pictures."""
    (root / "images").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        (root / "images" / name).write_bytes(png(number))
    return root


def listed(root: Path, path: str = "images", **params: Any) -> tuple[dict[str, RawPair], dict[str, Any]]:
    """The pairs of the source with these params by key, and its `source.json`."""
    source = Folder(FolderSource(kind="folder", path="unused", **params), root / path)
    unit = source.download(WorkCache(root.parent / "work", "download"))
    return {pair.key: pair for pair in read_pairs(unit.folder, root / path)}, read_source(unit.folder)
