"""How many requests may be in flight.

A server says with 429 that there are too many. Then all of them rest as long as it asks, and half as many go on; each
answer makes room for a little more, up to the most that is allowed (additive increase, multiplicative decrease, as in
TCP).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LONGEST_REST = 600.0


class Traffic:
    """`async with traffic.slot(): ...` for each request."""

    def __init__(self, most: int, rest: float) -> None:
        """Begin with `most` requests; `rest` seconds follow a first 429 that asks for none."""
        self._most, self._limit = most, float(most)
        self._rest, self._rests = rest, 0
        self._until = self._halved = 0.0
        self._active = 0
        self._changed = asyncio.Condition()

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return max(1, int(self._limit))

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A place among the requests in flight, when there is one and the server does not rest."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._active < self.limit)
                wait = self._until - time.monotonic()
                if wait <= 0:
                    self._active += 1
                    break
            await asyncio.sleep(wait * random.uniform(1.0, 1.2))
        try:
            yield
        finally:
            async with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def answered(self) -> None:
        """An answer has come."""
        self._rests = 0
        self._limit = min(float(self._most), self._limit + 1.0 / self._limit)

    def limited(self, rest: float | None) -> None:
        """The server wants fewer requests, after so many seconds, if it says."""
        now = time.monotonic()
        if now >= self._halved:  # requests that were in flight together count once
            self._limit = max(1.0, self._limit / 2)
            self._rests += 1
        if rest is None:
            rest = self._rest * 2.0 ** min(self._rests - 1, 20)
        self._until = max(self._until, now + min(rest, LONGEST_REST))
        self._halved = self._until
