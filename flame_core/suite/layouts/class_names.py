"""Names of classes in one or many languages, for every layout with labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flame_core.errors import InputError
from flame_core.suite.content import Skips
from flame_core.suite.definition import Benchmark
from flame_core.suite.layouts.reading import read_json, read_text
from flame_core.suite.templates import CLASS, written

NAMES = "classnames.txt"


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank; none if there is no file.

    Raises:
        InputError: it is not UTF-8; names the line.
    """
    return [line for row in read_text(path).splitlines() if (line := row.strip())] if path.exists() else []


def read_templates(path: Path) -> list[str]:
    """The templates of a text file, one per line; none if there is no file.

    Raises:
        InputError: one has no placeholder for the class.
    """
    return _templates(read_lines(path), str(path))


@dataclass
class ClassNames:
    """Names, templates and numbers of the named classes, by language, as in `content.Labelled`."""

    names: dict[str, list[str]]
    templates: dict[str, list[str]] = field(default_factory=dict)
    parts: dict[str, list[int]] = field(default_factory=dict)


def class_names(benchmark: Benchmark, folder: Path, own: list[str], count: int, skips: Skips) -> ClassNames:
    """Class names by language: from the file `task.class_names` if it is set, else names from `own`.

    Args:
        benchmark: its languages and its file of names, JSON of {language: names}. The names are a list of all classes'
            names, {"names": [...], "templates": [...]}, or [[numbers], [names]] of some classes (Babel-ImageNet). A
            language may be in capitals.
        folder: the folder of that file.
        own: the names in the data themselves.
        count: number of classes, from the labels.
        skips: counts languages that the benchmark does not list.

    Raises:
        InputError: a language is missing, does not have `count` names, or has something other than names and templates.
    """
    file = getattr(benchmark.task, "class_names", None)
    place = folder / (file or NAMES)
    found = ClassNames({} if file else {benchmark.languages[0]: own})
    given = {language.lower(): (language, value) for language, value in read_json(place, dict).items()} if file else {}
    wanted = {language.lower(): language for language in benchmark.languages}
    if missing := [language for key, language in wanted.items() if file and key not in given]:
        raise InputError(f"{place}: no class names in {', '.join(missing)} (it has {', '.join(sorted(given))})")
    for key, (language, _) in given.items():
        if key not in wanted:
            skips.add("class names in languages that the benchmark lacks", language)
    for key, language in wanted.items() if file else ():
        _read_language(found, language, *given[key], place, count)
    for language, rows in found.names.items():
        if language not in found.parts and len(rows) != count:
            raise InputError(f"{place}: {len(rows)} class names in {language!r}, but the labels are of {count} classes")
    return found


def _read_language(found: ClassNames, language: str, key: str, value: Any, path: Path, count: int) -> None:
    place = f"{path}, {key}"
    if isinstance(value, dict):
        if unknown := sorted(value.keys() - {"names", "templates"}):
            raise InputError(f"{place}: unknown key {unknown[0]!r}; known keys: names, templates")
        found.names[language] = _texts(value.get("names"), f"{place}: names")
        if rows := _templates(_texts(value.get("templates", []), f"{place}: templates"), place):
            found.templates[language] = rows
    elif isinstance(value, list) and len(value) == 2 and isinstance(value[0], list):
        numbers, found.names[language] = value[0], _texts(value[1], f"{place}: the names")
        if not all(type(number) is int and 0 <= number < count for number in numbers):
            raise InputError(f"{place}: the numbers of classes must be from 0 to {count - 1}")
        if len(set(numbers)) != len(numbers) or len(numbers) != len(value[1]) or not numbers:
            raise InputError(f"{place}: {len(set(numbers))} numbers of classes with {len(value[1])} names")
        found.parts[language] = numbers
    else:
        found.names[language] = _texts(value, f"{place}: the names")


def _texts(found: Any, place: str) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(row, str) and row.strip() for row in found):
        raise InputError(f"{place} must be a list of texts, none of them empty")
    return found


def _templates(rows: list[str], place: str) -> list[str]:
    for row in rows:
        if CLASS not in written(row):
            raise InputError(f"{place}: the template {row!r} has no {CLASS} or {{}} for the class")
    return [written(row) for row in rows]
