"""An unpacked Debian package, of which only the pictures are kept."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from flame_core.data.picture_kinds import may_be_picture
from flame_core.data.sources import ImageRef, Problem
from flame_core.data.sources.accounting import Unused
from flame_core.data.text_files import TextError, decode_text
from flame_core.digest import file_sha256
from flame_core.files.regular_files import open_regular
from flame_core.names import printable


class Package:
    """A package's files below `tree`; kept pictures are moved to the folder `kept`."""

    def __init__(self, tree: Path, licence: str | None, kept: Path, problems: list[Problem], unused: Unused) -> None:
        self.tree = tree
        self.licence = licence
        self._kept = kept
        self._problems = problems
        self._unused = unused
        self._refs: dict[Path, ImageRef] = {}

    def keep(self, picture: Path, name: str) -> ImageRef | None:
        """Keep a picture as `name`; a link to an already kept picture adds nothing. None for a broken link."""
        origin = picture.resolve()
        if origin not in self._refs:
            if not origin.is_file() or not origin.is_relative_to(self.tree):
                self._fail(picture, "unreadable_file", "a broken link, or one out of the package")
                return None
            place = self._kept / name
            place.parent.mkdir(parents=True, exist_ok=True)
            origin.replace(place)
            place.chmod(0o644)
            self._refs[origin] = ImageRef(place, 0, place.stat().st_size, file_sha256(place))
        return self._refs[origin]

    def text(self, path: Path) -> str | None:
        """The text in a file of the package; None, and a problem, if it cannot be read."""
        try:
            if not path.resolve().is_relative_to(self.tree):
                raise TextError("a link out of the package")
            with open_regular(path) as file:
                return decode_text(file.read()).replace("\r\n", "\n").replace("\r", "\n")
        except TextError as error:
            self._fail(path, "damaged_text", str(error))
        except OSError as error:
            self._fail(path, "unreadable_file", error.strerror or str(error))
        return None

    def note_pictures(self, folder: Path, read: Collection[str]) -> None:
        """Count pictures below `folder` whose suffix is not one of `read`."""
        for path in sorted(folder.rglob("*")):
            if path.suffix not in read and path.suffix and may_be_picture(path.name):
                self._unused.add("unsupported_suffix", path.relative_to(self.tree).as_posix())

    def _fail(self, path: Path, reason: str, detail: str) -> None:
        self._problems.append(Problem(printable(path.relative_to(self.tree).as_posix()), reason, detail))
