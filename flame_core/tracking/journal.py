"""The journal of a training: an append-only file of events, and a mark of how far they were delivered.

`.flame/tracking/<main or workspace>/<key>/`, where the key is the digest of the training, so a resumed training
continues the same journal:

    events.jsonl     one event per line, in order, each with its CRC-32 after a tab; the record that needs no server
    files/           copies of files that events name, by sha256
    ../models/       {sha256 of a model's weights}: the key of its training
    delivered.json   the tracking address, MLflow's ids there, and the byte up to which events have arrived

Events are written first and delivered later by another process, so an outage never stops a training. The journal is
kept after delivery: `flame tracking replay --all` sends all of it to another server. Files are copied, because a person
or DVC may rewrite `params.yaml`, `dvc.lock` and others in place, which would change a hard link; file systems that can
share blocks (btrfs, XFS) do so. Checksums detect a damaged line or mark, which is then left out.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flame_core.digest import file_sha256, json_bytes, value_digest
from flame_core.errors import InputError
from flame_core.files.disk_errors import clear_disk_errors
from flame_core.files.whole_files import put
from flame_core.files.whole_folders import scratch
from flame_core.tracking.address import sqlite_path, without_login
from flame_core.tracking.kept_files import copy_file

MODEL_TAG = "flame.model_sha256"  # of a run, its model and its version in MLflow: the sha256 of the weights
KEY_TAG = "flame.training"  # of a run and its model in MLflow: the journal's key, for finding them
EVENTS, FILES, DELIVERED, MODELS = "events.jsonl", "files", "delivered.json", "models"
_CHECK = re.compile(rb"\t([0-9a-f]{8})\n")  # after an event; JSON contains no plain tab
_DIGEST = "digest"  # of a mark, stored in the mark


@dataclass
class Delivered:
    """How much has arrived at which server. The embedded store is named relative to the project, which may move."""

    address: str
    position: int = 0
    run_id: str | None = None
    experiment_id: str | None = None
    model_id: str | None = None
    version: str | None = None


class Journal:
    """One training's journal. One process appends and one delivers; they may be different processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = folder.name

    @classmethod
    def all(cls, parent: Path) -> list[Journal]:
        """The journals anywhere below a folder, the oldest first."""
        found = [path.parent for path in parent.rglob(EVENTS)]
        return [cls(folder) for folder in sorted(found, key=lambda folder: (folder / EVENTS).stat().st_ctime)]

    @classmethod
    def of_model(cls, parent: Path, sha256: str) -> Journal | None:
        """The journal of the training that made the weights with this sha256; None if it was not tracked."""
        try:
            named = cls(parent / (parent / MODELS / sha256).read_bytes().decode("ascii"))
            if named.folder.is_dir() and named.folder != parent:
                return named
        except (OSError, ValueError):
            pass  # never written, or damaged; the events have the digest too
        for journal in cls.all(parent):
            if any(event.get("tags", {}).get(MODEL_TAG) == sha256 for event, _ in journal.events()):
                return journal
        return None

    def remember_model(self, sha256: str) -> None:
        """Let `of_model` find this journal by the sha256 of the training's weights."""
        index = self.folder.parent / MODELS / sha256
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_text(self.key, "utf-8")

    def append(self, *events: Mapping[str, Any]) -> None:
        """Write events; each has a `kind`. An incomplete line left by a killed process is removed first.

        Raises:
            ResourceError: the disk is full, or the user may not write there.
        """
        if not events:
            return
        lines = b"".join(map(_line, events))
        with clear_disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / EVENTS).open("a+b") as file:
                _drop_cut_line(file.fileno())
                file.write(lines)

    def keep(self, path: Path) -> str:
        """Keep a copy of a file for delivery; returns the name to put into an event.

        Raises:
            ResourceError: the disk is full, or the user may not write there; no part of the copy stays.
        """
        target = self.folder / FILES / file_sha256(path)
        if target.is_file() and file_sha256(target) == target.name:
            return target.name
        with clear_disk_errors(target.parent), scratch(target.parent) as folder:
            copy = folder / "copy"
            copy_file(path, copy)
            target = target.with_name(file_sha256(copy))  # of the copy, in case the file was rewritten meanwhile
            copy.replace(target)
        return target.name

    def file(self, name: str) -> Path:
        """A kept file.

        Raises:
            InputError: it is missing, or its bytes changed.
        """
        path = self.folder / FILES / name
        if not path.is_file() or file_sha256(path) != name:
            raise InputError(f"{path} is missing or damaged, so the event that names it cannot be delivered")
        return path

    def events(self, start: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
        """(event, position after it) of complete, undamaged lines from a position on."""
        return ((event, position) for event, position in self.lines(start) if event is not None)

    def of_kind(self, kind: str) -> Iterator[dict[str, Any]]:
        """The events of one kind; lines of others, of which there is one per step, are not parsed."""
        if (self.folder / EVENTS).is_file():
            with (self.folder / EVENTS).open("rb") as file:
                named = f'"kind": "{kind}"'.encode()  # as `_line` writes it
                found = (_event(line) for line in file if named in line and line.endswith(b"\n"))
                yield from (event for event in found if event is not None and event["kind"] == kind)

    def lines(self, start: int = 0) -> Iterator[tuple[dict[str, Any] | None, int]]:
        """(event, position after it) of complete lines from a position on; the event of a damaged line is None."""
        if not (self.folder / EVENTS).is_file():
            return
        with (self.folder / EVENTS).open("rb") as file:
            file.seek(start)
            while (line := file.readline()).endswith(b"\n"):
                start += len(line)
                yield _event(line), start

    def delivered(self, address: str) -> Delivered:
        """The mark for a server; a new one if the journal was delivered to another server, or not at all."""
        try:
            content = json.loads((self.folder / DELIVERED).read_text("utf-8"))
            digest = content.pop(_DIGEST, None)
            mark = Delivered(**content)
            whole = digest in (None, value_digest(content)) and self._is_end(mark.position)
            here = without_login(mark.address) in (address, self._place(address))
        except (OSError, ValueError, TypeError, AttributeError):
            return Delivered(address)
        return replace(mark, address=address) if whole and here else Delivered(address)

    def mark(self, delivered: Delivered) -> None:
        """Replace the mark atomically."""
        content = asdict(replace(delivered, address=self._place(delivered.address)))
        put(self.folder / DELIVERED, json_bytes({**content, _DIGEST: value_digest(content)}))

    def send_again(self, address: str) -> None:
        """Let `deliver` send everything once more, into the run that a server has of it, whatever it is called now."""
        self.mark(Delivered(address, run_id=self.delivered(address).run_id))

    def _place(self, address: str) -> str:
        """An address as stored in a mark: a database of this project is relative to its state folder."""
        database, above = sqlite_path(address), self.folder.parents
        if database and len(above) > 2 and above[1].name == "tracking" and database.is_relative_to(above[2]):
            return f"sqlite:{database.relative_to(above[2])}"
        return address

    def _is_end(self, position: int) -> bool:
        """Whether a position is the end of a line."""
        if position == 0:
            return True
        with (self.folder / EVENTS).open("rb") as file:
            file.seek(position - 1)
            return file.read(1) == b"\n"

    def pending(self, address: str) -> int:
        """Number of events that have not arrived."""
        return sum(1 for _ in self.events(self.delivered(address).position))

    @contextmanager
    def delivering(self) -> Iterator[bool]:
        """Whether this process may deliver; False while another does. The lock ends with the process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


def _line(event: Mapping[str, Any]) -> bytes:
    """An event as a line of the journal."""
    text = json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return text + f"\t{zlib.crc32(text):08x}\n".encode()


def _event(line: bytes) -> dict[str, Any] | None:
    """The event of a line; None if the line is damaged. Older journals have no checksums."""
    text, tab, check = line.rpartition(b"\t")
    if tab and not (_CHECK.fullmatch(tab + check) and int(check, 16) == zlib.crc32(text)):
        return None
    try:
        event = json.loads((text if tab else line).decode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("kind"), str) else None


def _drop_cut_line(descriptor: int) -> None:
    """Truncate an open file after its last line end."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    while size and os.pread(descriptor, 1, size - 1) != b"\n":
        size -= 1
    os.ftruncate(descriptor, size)
