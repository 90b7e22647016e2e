"""Adapts the embedded store of a copied or moved project to its new folder.

MLflow's database holds absolute locations of artifacts, so a copy of the project would read from the original and write
into it. The locations are rewritten when the store is opened at a new place, before anything is read.

Only locations below a project that had its store at the same relative path are rewritten; a bucket or a share stays.
This module imports only the standard library.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

STORE = Path(".flame", "mlflow")  # the embedded store, relative to the project
ARTIFACTS = "artifacts"
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)


def relocate(database: Path) -> list[Path]:
    """Rewrite a store's locations to its present project; returns the projects that they named before."""
    folder = database.absolute().parent
    if not database.is_file() or folder.parts[-2:] != STORE.parts:
        return []
    project = folder.parents[1]
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        former = _former(connection, project)
        if former:
            connection.execute("BEGIN IMMEDIATE")
            for table, column in _locations(connection):
                for place in former:
                    _rewrite(connection, table, column, place, project)
            connection.execute("COMMIT")
    return former


def _former(connection: sqlite3.Connection, project: Path) -> list[Path]:
    """Other projects whose stores the experiments' artifact locations name."""
    if ("experiments", "artifact_location") not in set(_locations(connection)):
        return []
    found = []
    for (location,) in connection.execute("SELECT DISTINCT artifact_location FROM experiments"):
        path = _path(location or "")
        if path is None or path.parts[-3:] != (*STORE.parts, ARTIFACTS):
            continue
        if path.parents[2] != project and not _same(path.parent, project / STORE):
            found.append(path.parents[2])
    return found


def _path(location: str) -> Path | None:
    """The folder of a `file:` location; None for any other."""
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _same(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same folder, such as through a link."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def _locations(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """The (table, column) pairs that this database has; another MLflow version may lack some."""
    for table, column in _LOCATIONS:
        if any(row[1] == column for row in connection.execute(f"PRAGMA table_info({table})")):
            yield table, column


def _rewrite(connection: sqlite3.Connection, table: str, column: str, old: Path, new: Path) -> None:
    """Replace the prefix of locations in `old`: addresses, and plain paths (MLflow's default experiment)."""
    for folder in (STORE, Path("mlruns")):
        for before, after in (
            ((old / folder).as_uri(), (new / folder).as_uri()),
            (str(old / folder), str(new / folder)),
        ):
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR {column} GLOB ?",
                (after, len(before) + 1, before, _glob(before) + "/*"),
            )


def _glob(text: str) -> str:
    """A GLOB pattern that matches only `text` itself."""
    return re.sub(r"[*?\[]", r"[\g<0>]", text)
