"""The journal of a training: an append-only file of events, and a mark of how far they were delivered.

`.flame/tracking/<main or workspace>/<key>/`, where the key is the digest of the training, so a resumed training goes
on in the same journal:

    events.jsonl     one event a line, in order; the record of the training that needs no server
    files/           files that events name, by sha256 (hard links where the file system allows)
    ../models/       {sha256 of a model's weights}: the key of its training
    delivered.json   the tracking address, MLflow's ids there, and the byte up to which events have arrived

Events are written first and delivered later by another process, so an outage never stops a training. The journal is
kept after delivery: `flame tracking replay --all` sends it whole to another server.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flame_core.digest import file_sha256, write_json
from flame_core.errors import InputError

KEY_TAG = "flame.training"  # of a run and its model in MLflow: the journal's key, by which they are found again
EVENTS, FILES, DELIVERED, MODELS = "events.jsonl", "files", "delivered.json", "models"


@dataclass
class Delivered:
    """What has arrived at which server."""

    address: str
    position: int = 0
    run_id: str | None = None
    experiment_id: str | None = None
    model_id: str | None = None
    version: str | None = None


class Journal:
    """One training's journal. One process appends and one delivers; they may be different ones."""

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
        """The journal of the training that made the weights of that sha256; None where it was not tracked."""
        try:
            return cls(parent / (parent / MODELS / sha256).read_text("utf-8"))
        except FileNotFoundError:
            return None

    def remember_model(self, sha256: str) -> None:
        """Let `of_model` find this journal by the weights that the training made."""
        index = self.folder.parent / MODELS / sha256
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_text(self.key, "utf-8")

    def append(self, *events: Mapping[str, Any]) -> None:
        """Write events; each has a `kind`. A line cut short by a killed process is removed first."""
        if not events:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events).encode()
        with (self.folder / EVENTS).open("a+b") as file:
            _drop_cut_line(file.fileno())
            file.write(lines)

    def keep(self, path: Path) -> str:
        """Keep a file's bytes for delivery; returns the name to put into an event."""
        name = file_sha256(path)
        target = self.folder / FILES / name
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f".{name}.{os.getpid()}")
            try:
                os.link(path, beside)
            except OSError:
                shutil.copyfile(path, beside)
            beside.replace(target)
        return name

    def file(self, name: str) -> Path:
        """A kept file.

        Raises:
            InputError: it is gone, or its bytes changed (a hard link shares the fate of the original).
        """
        path = self.folder / FILES / name
        if not path.is_file() or file_sha256(path) != name:
            raise InputError(f"{path} is missing or damaged; what it was kept for cannot be delivered")
        return path

    def events(self, start: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
        """(event, position after it) of whole lines from a position on."""
        if not (self.folder / EVENTS).is_file():
            return
        with (self.folder / EVENTS).open("rb") as file:
            file.seek(start)
            while (line := file.readline()).endswith(b"\n"):
                start += len(line)
                yield json.loads(line), start

    def delivered(self, address: str) -> Delivered:
        """The mark for a server; a fresh one where the journal was delivered to another, or not at all."""
        try:
            mark = Delivered(**json.loads((self.folder / DELIVERED).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return Delivered(address)
        return mark if mark.address == address else Delivered(address)

    def mark(self, delivered: Delivered) -> None:
        """Replace the mark, whole or not at all."""
        beside = self.folder / f".{DELIVERED}.{os.getpid()}"
        write_json(beside, asdict(delivered))
        beside.replace(self.folder / DELIVERED)

    def pending(self, address: str) -> int:
        """Number of events that have not arrived."""
        return sum(1 for _ in self.events(self.delivered(address).position))

    @contextmanager
    def delivering(self) -> Iterator[bool]:
        """Whether this process may deliver; false while another does. Ends with the process, however it ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


def _drop_cut_line(descriptor: int) -> None:
    """Cut an open file back to its last line end."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    while size and os.pread(descriptor, 1, size - 1) != b"\n":
        size -= 1
    os.ftruncate(descriptor, size)
