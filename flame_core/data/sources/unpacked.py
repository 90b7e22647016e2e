"""An unpacked Debian package, from which pictures are kept and all else is thrown away."""

from __future__ import annotations

from pathlib import Path

from flame_core.data.sources import ImageRef
from flame_core.digest import file_sha256


class Package:
    """A package's files below `tree`; pictures are moved from there to the folder `kept`."""

    def __init__(self, tree: Path, licence: str | None, kept: Path) -> None:
        self.tree = tree
        self.licence = licence
        self._kept = kept
        self._refs: dict[Path, ImageRef] = {}

    def keep(self, picture: Path, name: str) -> ImageRef | None:
        """Keep a picture as `name`; a link to a picture that is kept already adds nothing. None: a broken link."""
        origin = picture.resolve()
        if origin not in self._refs:
            if not origin.is_file() or not origin.is_relative_to(self.tree):
                return None
            place = self._kept / name
            place.parent.mkdir(parents=True, exist_ok=True)
            origin.replace(place)
            place.chmod(0o644)
            self._refs[origin] = ImageRef(place, 0, place.stat().st_size, file_sha256(place))
        return self._refs[origin]
