"""Stores the pictures that a table itself contains, one after another in a file of the source's folder.

A parquet page is compressed, so its pictures have no plain bytes on disk; this file gives each picture a place.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from flame_core.data.sources import ImageRef

PICTURE_FILE = "pictures.bin"


class PictureFile:
    """Appends pictures to `pictures.bin` in `folder`; equal bytes are stored once."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PICTURE_FILE
        self._kept: dict[str, ImageRef] = {}
        self._size = 0

    def keep(self, content: bytes) -> ImageRef:
        """Store a picture's bytes, if they are new, and return their place."""
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 not in self._kept:
            with self._path.open("ab") as file:
                file.write(content)
            self._kept[sha256] = ImageRef(self._path, self._size, len(content), sha256)
            self._size += len(content)
        return self._kept[sha256]
