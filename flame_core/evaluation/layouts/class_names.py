"""Names of classes in one or many languages, for every layout with labels."""

from __future__ import annotations

from pathlib import Path

from flame_core.errors import InputError
from flame_core.evaluation.definition import Benchmark
from flame_core.evaluation.layouts.reading import read_json


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank; none where there is no file."""
    return [line for row in path.read_text("utf-8").splitlines() if (line := row.strip())] if path.is_file() else []


def class_names(
    benchmark: Benchmark, folder: Path, own: list[str], count: int
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Names of each class and templates, both by language: of `task.class_names` where there is one, else `own`.

    Args:
        benchmark: its languages and its file of names, JSON of {language: [names]} or of
            {language: {"names": [...], "templates": [...]}}.
        folder: where that file lies.
        own: the names that the data themselves have.
        count: number of classes, from the labels.

    Raises:
        InputError: a language is missing, or has not `count` names.
    """
    file = getattr(benchmark.task, "class_names", None)
    names: dict[str, list[str]] = {benchmark.languages[0]: own}
    templates: dict[str, list[str]] = {}
    place = folder / "classnames.txt"
    if file:
        place = folder / file
        found = read_json(place)
        if not isinstance(found, dict):
            raise InputError(f"{place}: must hold {{language: [names]}}")
        missing = [language for language in benchmark.languages if language not in found]
        if missing:
            raise InputError(f"{place}: no class names in {', '.join(missing)} (it has {', '.join(sorted(found))})")
        for language in benchmark.languages:
            rows = found[language]
            if isinstance(rows, dict):
                names[language] = rows.get("names", [])
                templates[language] = rows.get("templates", [])
            else:
                names[language] = rows
    for language, rows in names.items():
        if len(rows) != count:
            raise InputError(f"{place}: {len(rows)} class names in {language!r}, but the labels are of {count} classes")
    return names, {language: rows for language, rows in templates.items() if rows}
