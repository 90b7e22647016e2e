"""The pictures of a table that holds them itself: written one after another into a file of the source's folder.

A page of parquet is compressed, so the bytes of its pictures lie nowhere as they are; this file gives each a place.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from flame_core.data.sources import ImageRef

PICTURE_FILE = "pictures.bin"


class PictureFile:
    """Appends pictures to `pictures.bin` in `folder`; equal bytes are kept once."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PICTURE_FILE
        self._kept: dict[str, ImageRef] = {}
        self._size = 0

    def keep(self, content: bytes) -> ImageRef:
        """The place of a picture's bytes."""
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 not in self._kept:
            with self._path.open("ab") as file:
                file.write(content)
            self._kept[sha256] = ImageRef(self._path, self._size, len(content), sha256)
            self._size += len(content)
        return self._kept[sha256]
