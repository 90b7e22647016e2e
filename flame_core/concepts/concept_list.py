"""The list of concepts whose frequency is counted: names with their lemmas, and where each name came from.

A name that several sources give is one concept. A file of concepts has one name per line; blank lines and lines that
begin with `#` are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flame_core.concepts.lemmas import lemmas
from flame_core.digest import value_digest
from flame_core.errors import InputError


@dataclass(frozen=True)
class Concept:
    """A concept.

    Attributes:
        name: as it was given.
        lemmas: of the name, at least one.
        sources: names of the benchmarks, `nouns` or `file`, sorted.
    """

    name: str
    lemmas: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Given:
    """A name as a source gives it; `place` says where, for errors."""

    name: str
    source: str
    place: str


class ConceptList:
    """Concepts in the order of their names; the number of one is its place."""

    def __init__(self, concepts: Iterable[Concept]) -> None:
        self._concepts = sorted(concepts, key=lambda each: each.name)

    def __len__(self) -> int:
        return len(self._concepts)

    def __iter__(self) -> Iterator[Concept]:
        return iter(self._concepts)

    def __getitem__(self, number: int) -> Concept:
        return self._concepts[number]

    @property
    def names(self) -> list[str]:
        return [concept.name for concept in self]

    @property
    def vocabulary(self) -> list[str]:
        """All lemmas of all concepts, sorted."""
        return sorted({lemma for concept in self for lemma in concept.lemmas})

    def digest(self) -> str:
        """The digest of names and lemmas, on which hits depend."""
        return value_digest([[concept.name, list(concept.lemmas)] for concept in self])


def concept_list(given: Iterable[Given], language: str) -> ConceptList:
    """The concepts of all given names.

    Raises:
        InputError: a name has no letter and no digit (says where it stands), or there is no name at all.
    """
    sources: dict[str, set[str]] = {}
    found: dict[str, tuple[str, ...]] = {}
    for each in given:
        name = " ".join(each.name.split())
        if name not in found:
            found[name] = lemmas(name, language)
            if not found[name]:
                raise InputError(
                    f"{each.place}: the concept {each.name!r} has no lemma, because it holds no letter and no digit; "
                    "correct or remove it"
                )
        sources.setdefault(name, set()).add(each.source)
    if not found:
        raise InputError(
            "concepts: there is no concept to count; name more benchmarks, nouns or a file with concepts, or lower "
            "concepts.nouns.min_captions"
        )
    return ConceptList(Concept(name, own, tuple(sorted(sources[name]))) for name, own in found.items())


def of_file(path: Path) -> list[Given]:
    """The names in a file of concepts.

    Raises:
        InputError: it is missing or is not UTF-8.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path} is missing, the file of concepts; correct concepts.file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a text file in UTF-8 ({error})") from None
    return [
        Given(line.strip(), "file", f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]


def of_classes(names: Mapping[str, Sequence[str]], places: Mapping[str, str]) -> list[Given]:
    """The class names of benchmarks, {benchmark: names}; `places` says where each benchmark's names stand."""
    return [
        Given(name.replace("_", " "), benchmark, f"{places[benchmark]}, class {number}")
        for benchmark, rows in names.items()
        for number, name in enumerate(rows, start=1)
    ]
