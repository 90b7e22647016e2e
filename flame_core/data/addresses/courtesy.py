"""What all processes of a download keep to together: how many requests a host gets at once, and how long it rests.

One folder per project. `slots` is an empty file in which a process locks one byte per request in flight: the byte's
place is the host's hash and the number of the slot, and the kernel frees it if the process dies. `rests` gets a line
for each host that asked for a rest; processes that use it hold a lock on it, since it is emptied when none does.
`robots/` holds the answers to robots.txt for a day.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from flame_core.digest import canonical_json

_SLOTS = 64  # the most per host
_KEPT = 86400  # seconds that a robots.txt counts


class Courtesy:
    """The folder, opened by one process, which must not open it twice: closing a file ends all locks of the process."""

    def __init__(self, folder: Path, per_host: int) -> None:
        self._robots = folder / "robots"
        self._robots.mkdir(parents=True, exist_ok=True)
        self._per_host = per_host
        self._slots = os.open(folder / "slots", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._rests = os.open(folder / "rests", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._rests, fcntl.LOCK_SH)
        self._read = 0
        self._until: dict[str, float] = {}
        self._own: dict[str, set[int]] = {}

    def close(self) -> None:
        os.close(self._slots)
        os.close(self._rests)

    def acquire(self, host: str) -> int | None:
        """A free slot of the host, or None; to be released."""
        own = self._own.setdefault(host, set())
        for slot in range(self._per_host):
            if slot not in own and self._lock(host, slot):
                own.add(slot)
                return slot
        return None

    def _lock(self, host: str, slot: int) -> bool:
        try:
            fcntl.lockf(self._slots, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(host) * _SLOTS + slot)
        except OSError:
            return False
        return True

    def release(self, host: str, slot: int) -> None:
        fcntl.lockf(self._slots, fcntl.LOCK_UN, 1, _place(host) * _SLOTS + slot)
        self._own[host].discard(slot)
        if not self._own[host]:
            del self._own[host]

    def rest(self, host: str, seconds: float) -> None:
        """Let a host rest, in all processes."""
        line = canonical_json([host, time.time() + seconds])
        os.write(self._rests, f"\n{line}\n".encode())  # a line of its own, even if the last one was cut by a full disk

    def rests_for(self, host: str) -> float:
        """Seconds that the host still rests; 0 if it may be asked."""
        size = os.fstat(self._rests).st_size
        if size > self._read:
            content = os.pread(self._rests, size - self._read, self._read)
            whole = content[: content.rfind(b"\n") + 1]
            self._read += len(whole)
            now = time.time()
            for line in whole.splitlines():
                with suppress(ValueError, TypeError):  # a cut line
                    name, until = json.loads(line)
                    if until > max(now, self._until.get(name, 0.0)):
                        self._until[name] = until
        return max(0.0, self._until.get(host, 0.0) - time.time())

    def known_robots(self, origin: str) -> str | None:
        """The robots.txt of an origin, asked within a day; None: it has to be asked."""
        path = self._robots / f"{_place(origin):012x}"
        try:
            if time.time() - path.stat().st_mtime > _KEPT:
                return None
            asked, text = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None
        return text if asked == origin else None

    def keep_robots(self, origin: str, text: str) -> None:
        """Keep an answer for a day from now; so an equal one is written again, which `put` would not do."""
        path = self._robots / f"{_place(origin):012x}"
        new = path.with_name(f"{path.name}.{os.getpid()}")
        new.write_text(canonical_json([origin, text]), "utf-8")
        new.rename(path)


def tidy(folder: Path, longest_rest: float) -> None:
    """Remove what counts no longer, before a download begins. Another one may be at work: its `rests` stay."""
    for path in (folder / "robots").glob("*"):
        with suppress(OSError):
            if _is_older(path, _KEPT):
                path.unlink()
    rests = folder / "rests"
    with suppress(OSError), rests.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_older(rests, longest_rest):
            file.truncate(0)


def _is_older(path: Path, seconds: float) -> bool:
    return time.time() - path.stat().st_mtime > seconds


def _place(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "replace")).digest()[:6], "big")
