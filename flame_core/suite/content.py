"""A benchmark's content once its files are read: pictures, which are read when needed, and their texts or labels.

Every layout gives one of four kinds of content, and a task works only on the content. `Skips` counts and names what
could not be used. `digest` covers texts, pairs, labels and the names and bytes of the pictures, so a store that was
made for other data is noticed. For it, the bytes are read once, by several threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flame_core.digest import value_digest
from flame_core.errors import InputError
from flame_core.names import printable

_READERS = 8  # threads that wait for the disk; hashing releases the interpreter's lock


class NotAvailable(Exception):
    """A benchmark's data are not available; the message says what is missing."""


@dataclass(frozen=True)
class Picture:
    """A picture in a file, or in a tar at a byte offset. `name` is unique within its benchmark."""

    name: str
    path: Path
    offset: int = 0
    size: int | None = None  # to the end of the file
    _sha256: str | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))

    def read(self) -> bytes:
        """The encoded picture.

        Raises:
            InputError: it cannot be read; names it.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return file.read() if self.size is None else file.read(self.size)
        except OSError as error:
            raise InputError(f"{self.path}: picture {self.name} cannot be read ({error.strerror})") from None

    def sha256(self) -> str:
        """Digest of its bytes, which are read on the first call."""
        if self._sha256 is None:
            object.__setattr__(self, "_sha256", hashlib.sha256(self.read()).hexdigest())
        assert self._sha256 is not None
        return self._sha256


@dataclass
class Skips:
    """Counts of what was left out, by reason, with some names."""

    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str, count: int = 1) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + count
        shown = self.names.setdefault(reason, [])
        if len(shown) < 10:
            shown.append(printable(name))

    def told(self) -> str:
        """All counts in one clause; empty if nothing was left out."""
        rows = [f"{count:,} {reason}, such as {self.names[reason][0]}" for reason, count in self.counts.items()]
        return f": {'; '.join(rows)}" if rows else ""


@dataclass
class Captioned:
    """Pictures with texts: {language: [(index of the picture, text)]}."""

    pictures: list[Picture]
    captions: dict[str, list[tuple[int, str]]]
    skips: Skips = field(default_factory=Skips)

    def digest(self) -> str:
        return _digest(self.pictures, self.captions)


@dataclass
class Labelled:
    """Pictures with one class each, and the names of the classes by language.

    `templates` are the data set's own, {language: [template with {c}]}; empty if it has none. `parts` are the numbers
    of the named classes of languages that name only some, as Babel-ImageNet does.
    """

    pictures: list[Picture]
    labels: np.ndarray  # [N]
    names: dict[str, list[str]]
    templates: dict[str, list[str]] = field(default_factory=dict)
    skips: Skips = field(default_factory=Skips)
    parts: dict[str, list[int]] = field(default_factory=dict)

    def digest(self) -> str:
        parts = [self.parts] if self.parts else []
        return _digest(self.pictures, [self.labels.tolist(), self.names, self.templates, *parts])


@dataclass(frozen=True)
class Question:
    """Pictures and texts; the first picture belongs to the first text, the second to the second."""

    name: str
    group: str
    pictures: tuple[int, ...]
    texts: tuple[str, ...]


@dataclass
class Questions:
    """Compositional questions, in groups that are scored separately (SugarCrepe's seven tasks)."""

    pictures: list[Picture]
    questions: list[Question]
    skips: Skips = field(default_factory=Skips)

    def digest(self) -> str:
        rows = [[q.name, q.group, q.pictures, q.texts] for q in self.questions]
        return _digest(self.pictures, rows)


@dataclass
class Masked:
    """Pictures with one mask each (an image whose values are class numbers), and the names of the classes."""

    pictures: list[Picture]
    masks: list[Picture]
    names: dict[str, list[str]]
    skips: Skips = field(default_factory=Skips)

    def digest(self) -> str:
        return _digest([*self.pictures, *self.masks], self.names)


Content = Captioned | Labelled | Questions | Masked


def pictures_sha256(pictures: Sequence[Picture]) -> list[str]:
    """The digests of the pictures' bytes, in order.

    Raises:
        InputError: one cannot be read; names it.
    """
    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        return list(pool.map(Picture.sha256, pictures))


def _digest(pictures: Sequence[Picture], rest: Mapping | Sequence) -> str:
    names = [picture.name for picture in pictures]
    return value_digest([list(zip(names, pictures_sha256(pictures), strict=True)), rest])
