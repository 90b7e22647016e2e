"""The work cache: results of units of work (usually one shard), stored under the digest of everything they depend on.

`.flame/work/<stage>/<digest>/` holds a unit's files and `ledger.json`: size and sha256 of each file, counts, and
failures by reason. A unit is written in a scratch folder (in `.tmp` beside the units) and renamed into place, so it
exists whole or not at all; a file whose bytes no longer match its record is discarded and computed again. A stage's out
is gathered from units by hard links once all are there, so a killed stage leaves no half out and a rerun computes only
what is missing.

A unit with failures can be tried again (`retry_failed`). The unit that is there stays until another one has replaced
it, so neither an error nor a kill loses it. What cannot be computed again, such as a picture from the web, is carried
over from one generation of a unit to the next (`WorkCache.mend`).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from flame_core.digest import file_sha256, value_digest, write_json
from flame_core.errors import InputError
from flame_core.files.disk_errors import clear_disk_errors
from flame_core.files.whole_folders import publish, replace_folder, scratch, scratch_below, settle
from flame_core.names import folders_of, shown, stays_inside
from flame_core.reporting import progress
from flame_core.verification import hashing_threads, write_digests

RECORD = "ledger.json"  # as in the caches that exist
_OWN_DIGEST = "ledger_sha256"  # in a record: digest of all else in it
_FEW = 32  # units that are looked up without a progress bar
VERSIONS_FILE = Path(__file__).with_name("versions.yaml")
log = logging.getLogger(__name__)

Name = TypeVar("Name", bound=Hashable)


@cache
def stage_versions() -> dict[str, int]:
    """Versions of the stages' code, from `flame_core/versions.yaml`."""
    return yaml.safe_load(VERSIONS_FILE.read_text("utf-8"))


@dataclass
class UnitRecord:
    """What a unit of work did: `counts` by name, and failed samples as {key: reason}."""

    counts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """A finished unit: its folder and its record."""

    folder: Path
    record: UnitRecord
    computed: bool  # in this run, not found in the cache
    sha256: dict[str, str]  # by file name
    elsewhere: Mapping[str, Path] = field(default_factory=dict)  # files that lie in other units' folders

    def file(self, name: str) -> Path:
        return self.elsewhere.get(name, self.folder / name)

    def names(self) -> list[str]:
        """Names of the unit's files, without its record."""
        return sorted(self.sha256)


class WorkCache:
    """Units of one stage. `retry_failed` recomputes units that recorded failures."""

    def __init__(self, work: Path, stage: str, *, retry_failed: bool = False) -> None:
        self.stage = stage
        self.folder = work / stage
        self.retry_failed = retry_failed

    def digest(self, inputs: Mapping[str, Any]) -> str:
        """The digest of a unit: its inputs (digests and params) and the version of the stage's code.

        A project's own stage has version 0: what its code changes belongs into `inputs`.
        """
        return value_digest({"stage": self.stage, "version": stage_versions().get(self.stage, 0), **inputs})

    def find(self, digest: str) -> Unit | None:
        """The finished unit of that digest, verified byte for byte; None if it is missing or is to be tried again."""
        unit, damaged = self._open(digest)
        if damaged:
            shutil.rmtree(self.folder / digest)
            return None
        return None if unit and self.retry_failed and unit.record.failures else unit

    def find_all(self, digests: Mapping[Name, str]) -> dict[Name, Unit]:
        """The units of digests by name, as `find` finds them; several threads read their bytes."""
        asked = list(dict.fromkeys(digests.values()))
        pool = ThreadPoolExecutor(hashing_threads())
        try:
            with progress(f"look up {self.stage}", len(asked) if len(asked) > _FEW else 0, "units") as bar:
                found: dict[str, Unit] = {}
                for digest, unit in zip(asked, pool.map(self.find, asked), strict=True):
                    found |= {digest: unit} if unit else {}
                    bar.advance()
        finally:
            pool.shutdown(cancel_futures=True)
        return {name: found[digest] for name, digest in digests.items() if digest in found}

    def remove(self, digest: str) -> None:
        """Delete the unit of that digest, as a whole."""
        with scratch_below(self.folder) as folder, suppress(FileNotFoundError):
            (self.folder / digest).rename(folder / "removed")

    def _open(self, digest: str) -> tuple[Unit | None, list[str]]:
        """The unit of that digest, as far as its record can be read, and the names of its damaged files."""
        settle(self.folder / digest)
        folder = self.folder / digest
        if not folder.exists():
            return None, []
        try:
            content = json.loads((folder / RECORD).read_bytes())
            own = content.pop(_OWN_DIGEST, None)  # older records have none
            if own is not None and own != value_digest(content):
                raise ValueError("other bytes than were written")
            damaged = [name for name, expected in content["files"].items() if not _is_whole(folder / name, expected)]
            record = UnitRecord(content["counts"], content["failures"])
            sha256 = {name: file["sha256"] for name, file in content["files"].items()}
            unit = Unit(folder, record, False, sha256)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            unit, damaged = None, [RECORD]
        if damaged:
            log.warning("%s: %s of unit %s is damaged; computing it again", self.stage, ", ".join(damaged), digest[:12])
        return unit, damaged

    def compute(self, digest: str, write: Callable[[Path], UnitRecord]) -> Unit:
        """Run `write(scratch folder)` and publish the files as the unit of that digest.

        With `retry_failed`, they replace the unit that is there; else that is the equal result of another process.
        """
        return self._compute(digest, write, replace=self.retry_failed)

    def _compute(self, digest: str, write: Callable[[Path], UnitRecord], *, replace: bool) -> Unit:
        with clear_disk_errors(self.folder), scratch_below(self.folder) as folder:
            record = write(folder)
            files = {
                path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": file_sha256(path)}
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            content = {"counts": record.counts, "failures": record.failures, "files": files}
            write_json(folder / RECORD, {**content, _OWN_DIGEST: value_digest(content)})
            publish(folder, self.folder / digest, replace=replace)
        return Unit(self.folder / digest, record, True, {name: file["sha256"] for name, file in files.items()})

    def get(self, inputs: Mapping[str, Any], write: Callable[[Path], UnitRecord]) -> Unit:
        """The unit of these inputs, found in the cache or computed by `write`."""
        digest = self.digest(inputs)
        return self.find(digest) or self.compute(digest, write)

    def mend(
        self,
        digest: str,
        write: Callable[[Path, Unit | None], UnitRecord],
        again: Callable[[UnitRecord], bool] | None = None,
    ) -> Unit:
        """The unit of that digest, if need be in another generation, which keeps what is good in the last one.

        `write(scratch folder, last generation)` gets None if there is none. It may be damaged: `write` verifies what it
        carries over. `again` says by a record whether failures are tried again, by default if `retry_failed` is set.
        """
        unit, damaged = self._open(digest)
        retried = again(unit.record) if unit and again else bool(unit and self.retry_failed and unit.record.failures)
        if unit and not damaged and not retried:
            return unit
        return self._compute(digest, lambda folder: write(folder, unit), replace=True)


def _is_whole(path: Path, expected: Mapping[str, Any]) -> bool:
    try:
        return path.stat().st_size == expected["size"] and file_sha256(path) == expected["sha256"]
    except OSError:
        return False


def gather(
    out: Path,
    state: Path,
    files: Mapping[str, Path],
    texts: Mapping[str, bytes] | None = None,
    sha256: Mapping[str, str] | None = None,
) -> None:
    """Fill the folder `out` with hard links to `files` (relative name -> unit file) and small new files `texts`.

    The folder is built elsewhere and takes the place of the last one, so `out` is never incomplete: under `state`, or
    beside `out` if that is on another file system (files are then copied). Its `digests.json` records all files; it
    takes digests in `sha256` {relative name: digest} as given and reads the other files.

    Raises:
        InputError: a name leads out of `out`, or is another file's folder; nothing is written.
    """
    _require_places(out, {*files, *(texts or {})})
    out = out.resolve()  # a link to a folder on a larger disk stays one
    with clear_disk_errors(out), _built(out, state) as root:
        new = root / "new"
        new.mkdir()
        for name, source in sorted(files.items()):
            place = new / name
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, place)
            except OSError:
                shutil.copyfile(source, place)
        for name, content in sorted((texts or {}).items()):
            place = new / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        write_digests(new, sha256)
        replace_folder(new, out, root / "old")


def _require_places(out: Path, names: set[str]) -> None:
    """Refuse names that lead out of `out` or are both a file and a folder."""
    for name in names:
        if not stays_inside(name):
            raise InputError(f"{out}: a file of it would be called {shown(name)}, which leads out of it")
        if taken := names.intersection(folders_of(name)):
            raise InputError(f"{out}: {shown(taken.pop())} would be both a file and the folder of {shown(name)}")


@contextmanager
def _built(out: Path, state: Path) -> Iterator[Path]:
    """A private folder from which a rename to `out` is possible."""
    out.parent.mkdir(parents=True, exist_ok=True)
    state.mkdir(parents=True, exist_ok=True)
    if out.parent.stat().st_dev == state.stat().st_dev:
        with scratch(state / "gather") as folder:
            yield folder
        return
    beside = out.parent / ".gather"  # .dvcignore names it
    with scratch(beside) as folder:
        yield folder
    with suppress(OSError):  # another process may be building there too
        beside.rmdir()
