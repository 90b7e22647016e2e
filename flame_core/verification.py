"""Digests stored in an out: written when it is gathered, compared before anything is computed from it.

`digests.json` of an out holds {file: sha256} of all its other files. A stage verifies its inputs before it reads them,
so a bit that a disk flipped (size and mtime stay) causes an error, not a wrong model (docs/reliability.md).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from flame_core.absent_outs import bringing, making
from flame_core.cores import usable_cores
from flame_core.digest import file_sha256, write_json
from flame_core.errors import InputError
from flame_core.files.regular_files import is_hidden
from flame_core.quantities import size_text
from flame_core.reporting import progress

DIGESTS = "digests.json"
_NAMED = 5  # damaged files named in one error


@dataclass(frozen=True)
class Verified:
    """The amount of data compared with its digests, and the time that took; `str` is for people."""

    files: int
    size: int  # bytes
    seconds: float

    def __add__(self, other: Verified) -> Verified:
        return Verified(self.files + other.files, self.size + other.size, self.seconds + other.seconds)

    def __str__(self) -> str:
        return f"{size_text(self.size)} in {self.seconds:.1f} s"


def hashing_threads() -> int:
    """Threads that hash files at once; hashing releases Python's global lock."""
    return min(8, usable_cores())


def write_digests(out: Path, known: Mapping[str, str] | None = None) -> None:
    """Record the digests of all files in `out`; files in `known` ({file: sha256}) are not read."""
    known = known or {}
    write_json(out / DIGESTS, {name: known.get(name) or file_sha256(out / name) for name in _files(out)})


def read_digests(out: Path) -> dict[str, str]:
    """{file: sha256} of an out.

    Raises:
        InputError: there are none, or they are damaged.
    """
    path = out / DIGESTS
    try:
        recorded = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is missing, so {out} cannot be verified: {bringing(out)}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): run `{making(out)}`") from None
    if not isinstance(recorded, dict) or not all(isinstance(digest, str) for digest in recorded.values()):
        raise InputError(f"{path} is damaged (no digests by file): run `{making(out)}`")
    return recorded


def verify(wanted: Mapping[Path, Sequence[str]]) -> Verified:
    """Compare files of outs with their digests: {out: patterns such as `train/*.tar`; `*` stands for any path}.

    Hidden files that were not recorded (`.DS_Store`, NFS's `.nfs...`) are ignored: nothing reads them.

    Raises:
        InputError: names files that are damaged, missing or not recorded, and the command that makes them again.
    """
    start = time.monotonic()
    expected: dict[Path, tuple[Path, str]] = {}
    wrong: dict[Path, list[str]] = {}
    for out, patterns in wanted.items():
        recorded = {name: digest for name, digest in read_digests(out).items() if _matches(name, patterns)}
        there = {name for name in _files(out) if _matches(name, patterns)}
        absent = [f"{out / name} is missing, and {DIGESTS} names it" for name in sorted(recorded.keys() - there)]
        strange = (name for name in sorted(there - recorded.keys()) if not is_hidden(PurePosixPath(name).name))
        foreign = [f"{out / name} is not in its {DIGESTS}" for name in strange]
        wrong[out] = absent + foreign
        expected |= {out / name: (out, recorded[name]) for name in sorted(recorded.keys() & there)}
    size = sum(path.stat().st_size for path in expected)
    pool = ThreadPoolExecutor(hashing_threads())
    try:
        with progress("verify", len(expected), "files") as bar:
            for (path, (out, digest)), found in zip(expected.items(), pool.map(_digest, expected), strict=True):
                if found != digest:
                    why = f"its bytes are not those of {DIGESTS}" if found else "it cannot be read"
                    wrong[out].append(f"{path} is damaged: {why}")
                bar.advance()
    finally:
        pool.shutdown(cancel_futures=True)
    faults = [fault for each in wrong.values() for fault in each]
    if faults:
        more = f"\n  and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        commands = ", then ".join(f"`{making(out)}`" for out, each in wrong.items() if each)
        raise InputError("\n  ".join(faults[:_NAMED]) + f"{more}\nRun {commands}: undamaged work is kept")
    return Verified(len(expected), size, time.monotonic() - start)


def read_object(out: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of an out; an empty one if it is other JSON.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        content = json.loads((out / name).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{out / name} is damaged ({error}): run `{making(out)}`") from None
    return content if isinstance(content, dict) else {}


def _files(out: Path) -> list[str]:
    """Names of the files of an out, without its digests."""
    names = (path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    return sorted(name for name in names if name != DIGESTS)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _digest(path: Path) -> str | None:
    """A file's sha256; None if it cannot be read."""
    try:
        return file_sha256(path)
    except OSError:
        return None
