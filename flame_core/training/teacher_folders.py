"""Folders of what a teacher gave, in the work cache: they are whole, or removed and made again from their units."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from flame_core.errors import InputError
from flame_core.verification import verify

log = logging.getLogger(__name__)


def undamaged(folder: Path, sidecars: Callable[[Path], Iterable[Path]]) -> bool:
    """Whether the sidecars of `folder` are as they were stored; else a warning says so, and the folder is removed."""
    try:
        verify({sidecar: ["*"] for sidecar in sidecars(folder)})
    except InputError as error:
        log.warning("%s\nThese vectors are stored again", error)
        shutil.rmtree(folder)
        return False
    return True
