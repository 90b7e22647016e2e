"""The files of a large table: one file or a folder of them, each as it is or packed with gzip."""

from __future__ import annotations

import gzip
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flame_core.data.sources.table import NAMED_TABLES, TABLES
from flame_core.errors import InputError
from flame_core.files.regular_files import is_hidden

_BEGINNING = 1 << 20  # bytes


def table_files(path: Path, what: str) -> list[Path]:
    """The files of a table, in order; `what` they are (list of addresses), for people.

    Raises:
        InputError: there are none.
    """
    kinds = f"{', '.join(NAMED_TABLES)}, each also with .gz"
    if path.is_dir():
        own = {each: kind for each in path.iterdir() if not is_hidden(each.name) and (kind := kind_of_table(each))}
        for among in (TABLES, (".json",)):  # which may say something about tables, where there are any
            if files := sorted(each for each, kind in own.items() if kind in among and each.is_file()):
                return files
        raise InputError(f"{path} holds no {what} ({', '.join((*TABLES, '.json'))}, each also with .gz)")
    if not path.is_file():
        why = "is neither a file nor a folder" if path.exists() or path.is_symlink() else "does not exist"
        raise InputError(f"{path} {why}; `path` must name a {what}, or their folder")
    if not kind_of_table(path):
        raise InputError(f"{path.name}: a {what} is {kinds}")
    return [path]


def kind_of_table(path: Path) -> str | None:
    """`.tsv` for `a.tsv` and `a.tsv.gz`; None if it is no table."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in NAMED_TABLES if name.endswith(suffix)), None)


@contextmanager
def clear_errors(path: Path, *others: type[Exception]) -> Iterator[None]:
    """Says that the file is damaged if gzip or a library (`others`) finds that, and what to do.

    Raises:
        InputError: it is.
        OSError: of the disk.
    """
    try:
        yield
    except (EOFError, zlib.error, OSError, *others) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk: gzip's and Arrow's own have no number
            raise
        raise InputError(f"{path} is damaged ({error}); copy or download it again") from None


@contextmanager
def unpacked(path: Path, scratch: Path) -> Iterator[Path]:
    """The file itself, or what gzip packed in it, as a file in the folder `scratch` that is then removed.

    Raises:
        InputError: it is damaged.
    """
    if path.suffix.lower() != ".gz":
        yield path
        return
    place = scratch / path.name[:-3]
    with clear_errors(path), gzip.open(path) as packed, place.open("wb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)
    try:
        yield place
    finally:
        place.unlink()


@contextmanager
def beginning(path: Path, scratch: Path) -> Iterator[Path | None]:
    """The file itself, or the first lines of what gzip packed in it; None of packed kinds that have none.

    Raises:
        InputError: it is damaged.
    """
    if path.suffix.lower() != ".gz":
        yield path
    elif kind_of_table(path) in (".parquet", ".json"):
        yield None
    else:
        place = scratch / path.name[:-3]
        with clear_errors(path), gzip.open(path) as packed:
            content = packed.read(_BEGINNING)
            place.write_bytes(content if len(content) < _BEGINNING else content[: content.rfind(b"\n") + 1])
        yield place
