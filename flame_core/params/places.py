"""Where each value of params was written, for messages: file, line and key, or the override that set it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flame_core.names import shown

Key = tuple[str, ...]  # numbers of list items are parts too
BY_OBJECTIVE, BY_RECIPE = "by_objective", "by_recipe"


class Place(NamedTuple):
    """A key in a file or an override; `line` is None where only the file is known."""

    source: str
    line: int | None
    key: Key

    def __str__(self) -> str:
        name = ".".join(shown(part)[1:-1] for part in self.key)
        return ", ".join(part for part in (self.source, self.line and f"line {self.line}", name) if part)


class Places:
    """The places of a params file, of the overrides laid over it, and of the recipes that it names."""

    def __init__(self, source: str, lines: Mapping[Key, int | None]) -> None:
        """`lines` has every key of the content, sections and list items too."""
        self._source = source
        self._places = {key: Place(source, line, key) for key, line in lines.items()}
        self._recipes: dict[str, tuple[Places, str]] = {}

    @classmethod
    def without_lines(cls, content: Any, path: Path) -> Places:
        """The places of content that was not read from a text."""
        return cls(short(path), dict.fromkeys(keys_of(content)))

    def override(self, override: str, content: Mapping[str, Any]) -> None:
        """Note that an override laid this content over the file's."""
        self._override(Place(override, None, ()), (), content)

    def _override(self, place: Place, key: Key, value: Any) -> None:
        if isinstance(value, Mapping):
            if key:
                self._places.setdefault(key, place._replace(key=key))
            for part, below in value.items():
                self._override(place, (*key, str(part)), below)
            return
        if key in self._places:  # replaced, with all that is below it
            for old in [old for old in self._places if old[: len(key)] == key]:
                del self._places[old]
        for each in (key, *keys_of(value, key)):
            self._places[each] = place._replace(key=each)

    def add_recipe(self, name: str, places: Places, objective: str) -> None:
        """Note where a recipe was written, and the name of its loss."""
        self._recipes[name] = places, objective

    def find(self, key: Sequence[str], *, missing: bool = False) -> Place:
        """The place of a key as pydantic names it; of one that is not written, that of the section above it.

        Args:
            key: may hold tags of discriminated unions, which nobody writes; `train.<recipe>.<key>` is found in `train`
                of the params or in the recipe's file.
            missing: the last part is a key that is not there.
        """
        there = key[:-1] if missing else key  # an override may have replaced what was written there
        recipe = self._recipes.get(key[1]) if key[:1] == ("train",) and len(key) > 1 else None
        if recipe is None:
            return self._place(self._walk((), there), key, missing)
        places, objective = recipe
        rest = tuple(there[2:])
        found: list[tuple[Places, Key, int]] = [(self, self._walk(("train",), rest), 1)]
        own = self._walk(("train", BY_RECIPE, key[1]), rest)
        if len(own) > 3:
            found.insert(0, (self, own, 3))
        if rest[:1] == ("objective",):
            start = ("train", BY_OBJECTIVE, objective)
            found.append((self, self._walk(start, rest[1:]), len(start) - 1))
        found.append((places, places._walk((), rest), 0))
        owner, here, _ = max(found, key=lambda each: len(each[1]) - each[2])  # the first of equals: it wins
        if len(here) <= 1 and owner is self:  # only `train` itself
            owner, here = places, ()
        return owner._place(here, key, missing)

    def _walk(self, start: Key, parts: Sequence[str]) -> Key:
        """The deepest known key below `start`; unknown parts are skipped."""
        here = start if start in self._places or not start else ()
        if here != start:
            return ()
        for part in parts:
            here = (*here, part) if (*here, part) in self._places else here
        return here

    def _place(self, here: Key, key: Sequence[str], missing: bool) -> Place:
        found = self._places.get(here, Place(self._source, None, ()))
        return found._replace(key=(*here, key[-1])) if missing and key else found


def keys_of(content: Any, above: Key = ()) -> Iterator[Key]:
    """Every key of YAML content, sections and list items too."""
    if isinstance(content, Mapping):
        items = [(str(key), value) for key, value in content.items()]
    elif isinstance(content, list):
        items = [(str(number), value) for number, value in enumerate(content)]
    else:
        return
    for part, value in items:
        yield (*above, part)
        yield from keys_of(value, (*above, part))


def short(path: Path) -> str:
    """A path as people write it: relative if it is below the working directory."""
    here = os.path.relpath(path) if path.is_absolute() else str(path)
    return str(path) if here.startswith("..") else here
