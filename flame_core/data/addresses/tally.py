"""Live progress of a download that runs in several processes: rate, share of good addresses, commonest failures.

Each process writes its counts into a small file at most once a second; the process that started them adds the files up.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flame_core.files.whole_files import put

log = logging.getLogger(__name__)
_EVERY = 1.0  # seconds between two writes of a process
_SAID = 10.0  # seconds between two lines
_NAMED = 3


class Tally:
    """Counts of one unit of one process: {"ok" or a reason: addresses}."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / uuid.uuid4().hex
        self._counts: Counter[str] = Counter()
        self._written = time.monotonic()

    def add(self, outcome: str) -> None:
        self._counts[outcome] += 1
        if time.monotonic() - self._written >= _EVERY:
            self.write()

    def write(self) -> None:
        self._written = time.monotonic()
        put(self._path, json.dumps(self._counts).encode())


def read_tallies(folder: Path) -> Counter[str]:
    """The counts of all processes."""
    counts: Counter[str] = Counter()
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith("."):  # being written
            continue
        with suppress(OSError, ValueError):
            counts.update(json.loads(path.read_text("utf-8")))
    return counts


def told(counts: Counter[str], seconds: float, what: str = "addresses") -> str:
    """`1,200 addresses, 210/s, 78.0 % good; gone 12.0 %, timeout 3.1 %, forbidden 2.0 %`."""
    total = sum(counts.values())
    bad = Counter({reason: number for reason, number in counts.items() if reason != "ok"})
    first = f"{total:,} {what}, {total / max(seconds, 1e-3):,.0f}/s, {counts['ok'] / max(total, 1):.1%} good"
    rest = ", ".join(f"{reason} {number / total:.1%}" for reason, number in bad.most_common(_NAMED))
    return f"{first}; {rest}" if rest else first


@contextmanager
def followed(folder: Path) -> Iterator[None]:
    """Log the counts every ten seconds meanwhile, if they grow."""
    end = threading.Event()
    start = time.monotonic()

    def follow() -> None:
        seen = 0
        while not end.wait(_SAID):
            counts = read_tallies(folder)
            if (total := sum(counts.values())) > seen:
                seen = total
                log.info("%s", told(counts, time.monotonic() - start))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        if counts := read_tallies(folder):
            log.info("%s", told(counts, time.monotonic() - start))
