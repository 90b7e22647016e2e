"""Reads what layouts have in common: text, JSON, file names inside a folder, and the pictures below a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from flame_core.data.picture_kinds import SUFFIXES, suffix_of
from flame_core.data.text_files import TextError, decode_text
from flame_core.errors import InputError
from flame_core.files.regular_files import is_hidden
from flame_core.suite.content import NotAvailable, Skips

NO_PICTURE = "captions whose picture is missing"
NO_CAPTION = "pictures without a caption"
HIDDEN = "hidden files and folders"
OTHER_FILES = "files that are no pictures"
_DRAWINGS = frozenset({".svg"})
_PICTURES = SUFFIXES - _DRAWINGS  # models open pixels
_LONGEST, _LONGEST_PATH = 255, 3000  # bytes of a file's name, and of a path below a folder


def existing(path: Path) -> Path:
    """The path.

    Raises:
        NotAvailable: it does not exist.
    """
    if not path.exists():
        raise NotAvailable(f"{path} does not exist")
    return path


def is_picture(name: str) -> bool:
    """Whether a file of this name is read as a picture."""
    return suffix_of(name) in _PICTURES


def is_drawing(name: str) -> bool:
    """Whether a file of this name is a picture that sources read and models do not."""
    return suffix_of(name) in _DRAWINGS


def read_text(path: Path) -> str:
    """The content of a text file.

    Raises:
        NotAvailable: there is none.
        InputError: it is not a regular file, or not in UTF-8 (or its byte order mark's encoding); names the line.
    """
    if not existing(path).is_file():
        raise InputError(f"{path}: must be a file")
    try:
        return decode_text(path.read_bytes())
    except TextError as error:
        raise InputError(f"{path}: {error}; save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def read_json(path: Path, kind: type | None = None) -> Any:
    """The content of a JSON file; if `kind` is given, it must have that type.

    Raises:
        NotAvailable: there is none.
        InputError: it is not JSON, or of another type.
    """
    found = _parsed(read_text(path), str(path))
    if kind and not isinstance(found, kind):
        raise InputError(f"{path}: must hold {'a list' if kind is list else 'an object'}")
    return found


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and line for messages, object) for each line that is not blank.

    Raises:
        NotAvailable: there is no file.
        InputError: a line is not a JSON object; names it.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        row = _parsed(line, f"{path}, line {number}")
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: not a JSON object")
        yield f"{path}, line {number}", row


def _parsed(text: str, place: str) -> Any:
    try:
        found = json.loads(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(found, ensure_ascii=False).encode()  # fails for half of a surrogate pair
        return found
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not valid JSON ({error})") from None


def value(row: dict[str, Any], key: str, place: str, kind: type | tuple[type, ...] = str) -> Any:
    """`row[key]`.

    Raises:
        InputError: it is missing or of another type; names the place.
    """
    if not isinstance(row, dict) or not isinstance(row.get(key), kind):
        raise InputError(f"{place}: {key!r} is missing or of the wrong type")
    return row[key]


def inside(folder: Path, name: str, place: str) -> Path:
    """The file called `name` in the data, below `folder`; the name may begin with the folder's own name.

    Raises:
        InputError: the name is absolute, leads out of the folder, or is longer than a file's name can be.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise InputError(f"{place}: {name!r} must be a path below {folder}")
    if max(map(len, map(os.fsencode, parts))) > _LONGEST or len(os.fsencode(name)) > _LONGEST_PATH:
        raise InputError(f"{place}: {name[:60]!r}... is longer than the name of a file; is it a caption?")
    path = folder / name
    if parts[0] == folder.name and len(parts) > 1 and not path.exists():
        return folder.parent / name
    return path


def pictures_below(folder: Path, skips: Skips) -> list[Path]:
    """All pictures below a folder, sorted by name; everything else there is counted in `skips`.

    Raises:
        NotAvailable: there is no such folder.
    """
    found: list[Path] = []
    for at, folders, files in os.walk(existing(folder)):
        here = Path(at)
        for name in sorted(folders):
            if is_hidden(name):
                skips.add(HIDDEN, (here / name).relative_to(folder.parent).as_posix())
            elif (here / name).is_symlink():
                skips.add(
                    "links to folders, which are not followed", (here / name).relative_to(folder.parent).as_posix()
                )
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in sorted(files):
            path = here / name
            if is_hidden(name):
                skips.add(HIDDEN, path.relative_to(folder.parent).as_posix())
            elif is_picture(name) and path.is_file():
                found.append(path)
            else:
                skips.add(OTHER_FILES, path.relative_to(folder.parent).as_posix())
    return sorted(found)


def by_stem(paths: list[Path]) -> dict[str, Path]:
    """The pictures by their name without suffix.

    Raises:
        InputError: two have the same name; names both.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if (other := found.setdefault(path.stem, path)) != path:
            raise InputError(f"{path}: {other} has the same name, so it is unclear which is meant; remove one")
    return found


def caption_texts(found: Any, place: str) -> list[str]:
    """The texts of a captions field, which is a text or a list of texts; blank ones are left out."""
    rows = [found] if isinstance(found, str) else found
    if not isinstance(rows, list) or not all(isinstance(row, str) for row in rows):
        raise InputError(f"{place}: captions must be a text or a list of texts")
    return [text for row in rows if (text := row.strip())]
