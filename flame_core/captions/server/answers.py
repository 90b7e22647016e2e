"""The answers that are there, in one SQLite file in the work cache: `.flame/work/caption-answers/answers.sqlite`.

A server is no function: the same request gets another text tomorrow. So what a caption says is settled when its answer
first came, and it is never replaced. Each answer is written at once, so a killed run asks only for what was in flight.
A failure stays until an answer replaces it. Rows whose bytes have changed are as good as not there.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from flame_core.captions.server.reply import PASSING, Reply
from flame_core.digest import canonical_json
from flame_core.errors import InputError
from flame_core.layout import Layout

_BUSY = 60.0  # seconds that another process may hold the file
_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    request TEXT PRIMARY KEY,
    ok INTEGER NOT NULL,
    content TEXT NOT NULL,
    sha256 TEXT NOT NULL
) WITHOUT ROWID
"""
_WRITERS = "CREATE TABLE IF NOT EXISTS writers (writer TEXT PRIMARY KEY) WITHOUT ROWID"
_PUT = """
INSERT INTO answers VALUES (?, ?, ?, ?)
ON CONFLICT (request) DO UPDATE SET ok = excluded.ok, content = excluded.content, sha256 = excluded.sha256
WHERE ok = 0
"""


@dataclass(frozen=True)
class Answer:
    """What a request gave, in the end: a reply without its wait, and how often the server was asked."""

    reason: str | None
    text: str
    status: int | None
    message: str
    model: str
    fingerprint: str
    finish: str
    prompt_tokens: int | None
    completion_tokens: int | None
    tries: int

    @classmethod
    def of(cls, reply: Reply, tries: int) -> Answer:
        values = {name: value for name, value in vars(reply).items() if name != "rest"}
        return cls(**values, tries=tries)

    @property
    def ok(self) -> bool:
        return self.reason is None

    @property
    def may_pass(self) -> bool:
        """Whether it failed for a reason that may be gone now."""
        return self.reason in PASSING


def answers_file(layout: Layout) -> Path:
    return layout.work / "caption-answers" / "answers.sqlite"


class Answers:
    """The file, opened by one thread of one process; several processes may have it open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._clear_errors():
            self._file = sqlite3.connect(path, timeout=_BUSY, isolation_level=None)
            self._file.execute("PRAGMA journal_mode = WAL")  # a write waits for no disk, and no kill loses it
            self._file.execute("PRAGMA synchronous = NORMAL")
            self._file.execute(_TABLE)
            self._file.execute(_WRITERS)

    def close(self) -> None:
        self._file.close()

    def get(self, request: str) -> Answer | None:
        """The answer to a request, or its failure; None if it is not there or damaged."""
        with self._clear_errors():
            row = self._file.execute("SELECT content, sha256 FROM answers WHERE request = ?", (request,)).fetchone()
            if row is None:
                return None
            if _sha256(request, row[0]) == row[1]:
                return Answer(**json.loads(row[0]))
            self._file.execute("DELETE FROM answers WHERE request = ? AND sha256 = ?", (request, row[1]))
            return None

    def put(self, request: str, answer: Answer) -> None:
        """Keep an answer, unless there is one."""
        content = canonical_json(asdict(answer))
        with self._clear_errors():
            self._file.execute(_PUT, (request, int(answer.ok), content, _sha256(request, content)))

    def remove(self, unwanted: Callable[[str], bool], *, delete: bool) -> int:
        """Remove the answers with an unwanted text from the file's bytes (or only find them); returns their number."""
        with self._clear_errors():
            rows = self._file.execute("SELECT request, content FROM answers")  # read to the end before any is deleted
            found = [(request,) for request, content in rows if unwanted(_text(content))]
            if found and delete:
                self._file.execute("PRAGMA secure_delete = ON")
                self._file.executemany("DELETE FROM answers WHERE request = ?", found)
                self._file.execute("VACUUM")
                self._file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return len(found)

    def has_written(self, writer: str) -> bool:
        """Whether a server has ever answered a request with these params."""
        with self._clear_errors():
            return self._file.execute("SELECT 1 FROM writers WHERE writer = ?", (writer,)).fetchone() is not None

    def note_writer(self, writer: str) -> None:
        with self._clear_errors():
            self._file.execute("INSERT OR IGNORE INTO writers VALUES (?)", (writer,))

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{self._path}: the answers of the caption server cannot be read or written ({error}). Mend what is "
                "wrong with the disk, or move the file away: then captions that are in no finished shard are asked "
                "for again"
            ) from None


def _text(content: str) -> str:
    """The text of a row; all of a damaged one."""
    try:
        return json.loads(content)["text"]
    except (ValueError, KeyError, TypeError):
        return content


def _sha256(request: str, content: str) -> str:
    return hashlib.sha256(f"{request}\n{content}".encode()).hexdigest()
