"""Copies of a bucket's files on this machine: `FLAME_STAGE_DIR`, by default below `FLAME_CACHE_DIR`.

    <name>-<digest>/      of an address and a pattern of files
      files/              the copies, under their paths below the address
      ledger.jsonl        a line per finished copy: path, size, when the original was written, sha256
      parts/              unfinished copies, which are continued
      wanted              bytes that all files will take when they are copied
      copying, used       locks: a process copies; processes read

A copy is finished when its size, and its sha256 if that is known, are right and the original has not changed meanwhile.
With `FLAME_STAGE_BYTES`, all copies together take at most so many bytes: those of other addresses that were used
longest ago are deleted, unless a process reads them. A process that makes room locks the folder of all copies.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from flame_core import reporting
from flame_core.data.buckets.bucket import Bucket, BucketFile, told
from flame_core.digest import canonical_json, text_sha256
from flame_core.errors import InputError, ResourceError
from flame_core.files.disk_errors import clear_disk_errors
from flame_core.files.whole_folders import locked, scratch
from flame_core.names import folders_of, shown
from flame_core.quantities import size_text
from flame_core.settings import settings

_PIECE = 1 << 23  # bytes that are read at once
_LEDGER = "ledger.jsonl"
_WANTED = "wanted"
_used: dict[Path, int] = {}  # locks of this process, which end with it
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Copy:
    """A line of the ledger."""

    path: str
    size: int
    modified: int
    sha256: str


class Stage:
    """The copies of the files that a pattern names at an address."""

    def __init__(self, address: str, pattern: str) -> None:
        self.address = address.rstrip("/")
        digest = text_sha256(f"{self.address} {pattern}")[:12]
        self.place = stage_root() / f"{self.address.rpartition('/')[2]}-{digest}"
        self.files = self.place / "files"

    def fetch(
        self, bucket: Bucket, wanted: Sequence[BucketFile], sha256: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Have a copy of each file, and of no others; returns {path: sha256}. Other processes wait for this one.

        The copies stay until this process ends, whatever others need.

        Args:
            bucket: at this address.
            wanted: files in it.
            sha256: of files, as far as it is known.

        Raises:
            InputError: a file is gone, changed while it was copied, or has another sha256; names it.
            ResourceError: the server cannot be reached, or there is no room for the copies.
        """
        known = sha256 or {}
        _require_places({file.path for file in wanted}, self.address)
        with clear_disk_errors(self.place):
            self.place.mkdir(parents=True, exist_ok=True)
            while not _hold(self.place):
                self.place.mkdir(parents=True, exist_ok=True)
            with _locked(self.place / "copying"):
                copies = self._copies()
                self._remove(copies, wanted)
                missing = [file for file in wanted if not self._has(file, copies, known.get(file.path))]
                with locked(self.place.parent):
                    _make_room(self, wanted, missing)
                with (self.place / _LEDGER).open("a", encoding="utf-8") as ledger:
                    os.utime(self.place / _LEDGER)  # when it was last used
                    for copy in self._copied(bucket, missing, known):
                        copies[copy.path] = copy
                        ledger.write(canonical_json(copy.__dict__) + "\n")
                        ledger.flush()
        if missing:
            size = sum(file.size for file in missing)
            log.info("copied %d of %d files, %s, from %s", len(missing), len(wanted), size_text(size), self.address)
        return {file.path: copies[file.path].sha256 for file in wanted}

    def has(self, sizes: Mapping[str, int], sha256: Mapping[str, str]) -> bool:
        """Whether finished copies of all these files are here; then they stay until this process ends."""
        if not (self.place / _LEDGER).is_file() or not _hold(self.place):
            return False
        copies = self._copies()
        found = all(
            path in copies and self._has(BucketFile(path, size, copies[path].modified), copies, sha256[path])
            for path, size in sizes.items()
        )
        if found:
            os.utime(self.place / _LEDGER)  # when it was last used
        return found

    def discard(self, paths: Sequence[str]) -> None:
        """Delete copies that are damaged."""
        for path in paths:
            (self.files / path).unlink(missing_ok=True)

    def _copies(self) -> dict[str, Copy]:
        """What the ledger says, by path; a line that a killed process left unfinished is completed and not read."""
        found: dict[str, Copy] = {}
        with (self.place / _LEDGER).open("a+", encoding="utf-8") as file:
            file.seek(0)
            text = file.read()
            if text and not text.endswith("\n"):
                file.write("\n")
        for line in text.splitlines():
            try:
                copy = Copy(**json.loads(line))
            except (ValueError, TypeError):
                continue
            found[copy.path] = copy
        return found

    def _has(self, file: BucketFile, copies: Mapping[str, Copy], sha256: str | None) -> bool:
        copy = copies.get(file.path)
        if copy is None or (copy.size, copy.modified) != (file.size, file.modified):
            return False
        here = self.files / file.path
        return sha256 in (None, copy.sha256) and here.is_file() and here.stat().st_size == file.size

    def _remove(self, copies: Mapping[str, Copy], wanted: Sequence[BucketFile]) -> None:
        """Delete copies of files that are not wanted any more, and unfinished ones of what files were before."""
        kept, parts = {file.path for file in wanted}, {_part(file) for file in wanted}
        self.discard([path for path in copies if path not in kept])
        for path in (self.place / "parts").glob("*"):
            if path.name not in parts:
                path.unlink()

    def _copied(self, bucket: Bucket, missing: Sequence[BucketFile], known: Mapping[str, str]) -> Iterator[Copy]:
        pool = ThreadPoolExecutor(settings().workers)
        try:
            copies = pool.map(lambda file: self._copy(bucket, file, known.get(file.path)), missing)
            with reporting.progress(f"copy {self.address}", len(missing), "files") as bar:
                for copy in copies:
                    yield copy
                    bar.advance()
        finally:
            pool.shutdown(cancel_futures=True)

    def _copy(self, bucket: Bucket, file: BucketFile, expected: str | None) -> Copy:
        where = f"{self.address}/{file.path}"
        parts = self.place / "parts"
        parts.mkdir(exist_ok=True)
        part = parts / _part(file)
        digest = hashlib.sha256()
        with part.open("a+b") as target:
            target.seek(0)
            done = _read_into(digest, target, file.size)
            target.truncate(done)
            target.seek(done)
            for piece in _pieces(bucket, file, done):
                target.write(piece)
                digest.update(piece)
                done += len(piece)
            target.flush()
            os.fsync(target.fileno())
        if bucket.now(file) != file or done != file.size:
            part.unlink()
            raise InputError(f"{where} changed while it was copied; run the same command again")
        if expected not in (None, digest.hexdigest()):
            part.unlink()
            raise InputError(f"{where}: its sha256 is {digest.hexdigest()}, and {expected} was recorded for it")
        place = self.files / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        part.rename(place)
        return Copy(file.path, file.size, file.modified, digest.hexdigest())


def _part(file: BucketFile) -> str:
    """The name of its unfinished copy."""
    return text_sha256(f"{file.path} {file.size} {file.modified}")[:24]


def stage_root() -> Path:
    """The folder of all copies."""
    given = settings()
    return given.stage_dir or given.cache_dir / "buckets"


def _pieces(bucket: Bucket, file: BucketFile, start: int) -> Iterator[bytes]:
    """The bytes of a file from `start` on."""
    where = f"{bucket.address}/{file.path}"
    with told(where):
        source = bucket.open(file)
        source.seek(start)
    with source:
        while start < file.size:
            with told(where):
                piece = source.read(min(_PIECE, file.size - start))
            if not piece:
                return
            start += len(piece)
            yield piece


def _read_into(digest: hashlib._Hash, file: BinaryIO, most: int) -> int:
    done = 0
    while done < most and (piece := file.read(min(_PIECE, most - done))):
        digest.update(piece)
        done += len(piece)
    return done


def _require_places(names: set[str], address: str) -> None:
    for name in names:
        if taken := names.intersection(folders_of(name)):
            raise InputError(f"{address}: {shown(taken.pop())} is both a file and the folder of {shown(name)}")


def _make_room(stage: Stage, wanted: Sequence[BucketFile], missing: Sequence[BucketFile]) -> None:
    """Delete copies of other addresses as the limit needs it; refuse what does not fit. One process at a time."""
    limit, own = settings().stage_bytes, sum(file.size for file in wanted)
    if limit is not None:
        others = sorted(_others(stage.place))
        over = own + sum(size for _, size, _ in others) - limit
        for _, size, place in others:
            if over > 0 and _evict(place):
                over -= size
        if over > 0:
            left = sum(size for _, size, place in others if place.exists())
            used = f", and {left:,} bytes of other addresses are in use" if left else ""
            raise ResourceError(
                f"{stage.address}: its files take {own:,} bytes{used}; FLAME_STAGE_BYTES allows {limit:,}: raise it"
            )
    needed, free = sum(file.size for file in missing), shutil.disk_usage(stage.place).free
    if needed > free:
        raise ResourceError(
            f"{stage.place.parent}: {needed:,} bytes are to be copied from {stage.address}, and {free:,} are free; set "
            "FLAME_STAGE_DIR to a folder of a larger disk"
        )
    (stage.place / _WANTED).write_text(str(own), "ascii")


def _others(place: Path) -> Iterator[tuple[float, int, Path]]:
    """(when last used, bytes, folder) of the copies of other addresses."""
    for ledger in place.parent.glob(f"*/{_LEDGER}"):
        if ledger.parent != place:
            with suppress(FileNotFoundError):  # deleted meanwhile
                yield ledger.stat().st_mtime, _size(ledger.parent), ledger.parent


def _size(place: Path) -> int:
    """The bytes of a folder of copies, with those that another process is going to copy."""
    here = 0
    for folder, _, names in os.walk(place):
        for name in names:
            with suppress(FileNotFoundError):  # another process has finished a copy
                here += Path(folder, name).lstat().st_size
    try:
        return max(here, int((place / _WANTED).read_text("ascii")))
    except (OSError, ValueError):
        return here


def _evict(place: Path) -> bool:
    """Delete a folder of copies, unless a process reads or copies them."""
    try:
        with (place / "used").open("a") as used:
            fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
            log.info("deleting the copies in %s", place)
            with scratch(place.parent) as folder:
                place.rename(folder / place.name)  # a process that comes now begins a folder of its own
    except (BlockingIOError, FileNotFoundError):  # in use, or deleted by another process
        return not place.exists()
    return True


def _hold(place: Path) -> bool:
    """Keep a folder of copies until this process ends; False if there is none."""
    while place not in _used:
        try:
            handle = os.open(place / "used", os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            return False
        fcntl.flock(handle, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):  # deleted while this one waited
            if os.path.samestat(os.fstat(handle), (place / "used").stat()):
                _used[place] = handle
                return True
        os.close(handle)
    return True


def release() -> None:
    """Let other processes delete the copies that this one used."""
    while _used:
        os.close(_used.popitem()[1])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
