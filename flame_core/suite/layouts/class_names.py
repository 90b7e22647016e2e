"""Names of classes in one or many languages, for every layout with labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flame_core.errors import InputError
from flame_core.suite.content import Skips
from flame_core.suite.definition import Benchmark
from flame_core.suite.layouts.reading import read_json, read_text

CLASS = "{c}"
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


def class_names(
    benchmark: Benchmark, folder: Path, own: list[str], count: int, skips: Skips
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Class names and templates by language: from the file `task.class_names` if it is set, else names from `own`.

    Args:
        benchmark: its languages and its file of names, JSON of {language: [names]} or of
            {language: {"names": [...], "templates": [...]}}.
        folder: the folder of that file.
        own: the names in the data themselves.
        count: number of classes, from the labels.
        skips: counts languages that the benchmark does not list.

    Raises:
        InputError: a language is missing, does not have `count` names, or has something other than names and templates.
    """
    file = getattr(benchmark.task, "class_names", None)
    names: dict[str, list[str]] = {benchmark.languages[0]: own}
    templates: dict[str, list[str]] = {}
    place = folder / NAMES
    if file:
        place = folder / file
        found = read_json(place, dict)
        missing = [language for language in benchmark.languages if language not in found]
        if missing:
            raise InputError(f"{place}: no class names in {', '.join(missing)} (it has {', '.join(sorted(found))})")
        for language in found:
            if language not in benchmark.languages:
                skips.add("class names in languages that the benchmark lacks", language)
        for language in benchmark.languages:
            names[language], templates[language] = _of_language(found[language], f"{place}, {language}")
    for language, rows in names.items():
        if len(rows) != count:
            raise InputError(f"{place}: {len(rows)} class names in {language!r}, but the labels are of {count} classes")
    return names, {language: rows for language, rows in templates.items() if rows}


def _of_language(found: Any, place: str) -> tuple[list[str], list[str]]:
    """(names, templates)."""
    if not isinstance(found, dict):
        return _texts(found, f"{place}: the names"), []
    if unknown := sorted(found.keys() - {"names", "templates"}):
        raise InputError(f"{place}: unknown key {unknown[0]!r}; known keys: names, templates")
    names = _texts(found.get("names"), f"{place}: names")
    return names, _templates(_texts(found.get("templates", []), f"{place}: templates"), place)


def _texts(found: Any, place: str) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(row, str) and row.strip() for row in found):
        raise InputError(f"{place} must be a list of texts, none of them empty")
    return found


def _templates(rows: list[str], place: str) -> list[str]:
    for row in rows:
        if CLASS not in row:
            hint = f"; write {CLASS} for {{}}" if "{}" in row else ""
            raise InputError(f"{place}: the template {row!r} has no {CLASS} for the class{hint}")
    return rows
