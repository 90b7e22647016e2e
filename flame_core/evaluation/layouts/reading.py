"""Reading what layouts have in common: JSON with clear errors, pictures of a folder, captions gathered by language."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from flame_core.errors import InputError
from flame_core.evaluation.content import Captioned, NotAvailable, Picture, Skips
from flame_core.evaluation.definition import Benchmark

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
NO_PICTURE = "captions whose picture is missing"
NO_CAPTION = "pictures without a caption"


def existing(path: Path) -> Path:
    """The path.

    Raises:
        NotAvailable: it does not exist.
    """
    if not path.exists():
        raise NotAvailable(f"{path} does not exist")
    return path


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        NotAvailable: there is none.
        InputError: it is not JSON.
    """
    try:
        return json.loads(existing(path).read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place for messages, object) of each line that is not blank.

    Raises:
        NotAvailable: there is no file.
        InputError: a line is not a JSON object; names it.
    """
    with existing(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}, line {number}: not valid JSON ({error})") from None
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: not a JSON object")
            yield f"{path}, line {number}", row


def value(row: dict[str, Any], key: str, place: str, kind: type | tuple[type, ...] = str) -> Any:
    """`row[key]`.

    Raises:
        InputError: it is missing or of another type; names the place.
    """
    if not isinstance(row, dict) or not isinstance(row.get(key), kind):
        raise InputError(f"{place}: {key!r} is missing or of the wrong type")
    return row[key]


def pictures_below(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted by name."""
    return sorted(path for path in existing(folder).rglob("*") if path.suffix.lower() in SUFFIXES)


def caption_texts(found: Any, place: str) -> list[str]:
    """The texts of a captions field: a text or a list of texts; blank ones are left out."""
    rows = [found] if isinstance(found, str) else found
    if not isinstance(rows, list) or not all(isinstance(row, str) for row in rows):
        raise InputError(f"{place}: captions must be a text or a list of texts")
    return [text for row in rows if (text := row.strip())]


def captioned(
    benchmark: Benchmark, rows: Iterable[tuple[str, Path, str, list[str]]], images: Path | None = None
) -> Captioned:
    """Content of rows (name, picture, language, texts); only the languages of the benchmark are kept.

    The pictures keep the order in which they first occur. Pictures of `images` that no row names are counted.
    """
    numbers: dict[str, int] = {}
    pictures: list[Picture] = []
    captions: dict[str, list[tuple[int, str]]] = {language: [] for language in benchmark.languages}
    skips = Skips()
    named: set[Path] = set()
    for name, path, language, texts in rows:
        named.add(path)
        if language not in captions:
            continue
        if name not in numbers and not path.is_file():
            skips.add(NO_PICTURE, name)
            continue
        if not texts:
            skips.add(NO_CAPTION, name)
            continue
        if name not in numbers:
            numbers[name] = len(pictures)
            pictures.append(Picture(name, path))
        captions[language] += [(numbers[name], text) for text in texts]
    for path in pictures_below(images) if images else []:
        if path not in named:
            skips.add(NO_CAPTION, path.name)
    return Captioned(pictures, captions, skips)
