"""Asks for addresses, in one event loop: a batch for each unit, of which the next begins while the last one ends.

A host gets at most `per_host` requests at once, of all processes together; while it rests or is busy, its addresses
wait in a queue of their own and other hosts go on. A redirect is a visit to its target, in the queue of the target's
host. Failures that may pass are tried again after a while, those of a robots.txt for all addresses of its host. What is
learned about an address goes to `done`.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf

from yarl import URL

from flame_core.data.addresses import robots
from flame_core.data.addresses.attempts import ASKED_AGAIN, OPTED_OUT, PASSING, Attempt, Outcome
from flame_core.data.addresses.courtesy import Courtesy
from flame_core.data.addresses.request import Answer, Requester, url_of

_REDIRECTS = 5
_BEGUN_AT_ONCE = 200  # addresses, before answers get a turn
_NAME_FAILURES = 3  # of a host's name, after which its other addresses wait for the last pass
_OUTCOMES: dict[str, Outcome] = {
    **dict.fromkeys(("bad_address", "address_refused", "port_refused"), "refused"),
    **dict.fromkeys(("x_robots_tag", "tdm_reservation", "robots_txt", OPTED_OUT), "opted_out"),
    **dict.fromkeys(("small", "aspect", "hash_changed"), "dropped"),
}


@dataclass(frozen=True)
class Pace:
    """How patient a download is. None of this changes the bytes of a picture.

    Attributes:
        backoff: seconds before the next tries, each times 0.5 to 1.5.
        patience: seconds that addresses wait for a host that rests; they are left to the last pass if it rests longer.
        look_again: seconds between two looks at a host that another process keeps busy.
    """

    backoff: tuple[float, ...] = (1.0, 4.0, 16.0)
    patience: float = 60.0
    look_again: float = 0.1


@dataclass
class Batch:
    """Addresses that end together.

    Attributes:
        examine: called in a thread with an answer that has a body; it may give the answer a reason.
        done: called with the last answer for an address: it has a body or a reason.
        left: addresses without their last answer.
        error: of `examine`, `done` or a request; nothing more is asked for.
    """

    examine: Callable[[Visit, Answer], None]
    done: Callable[[Visit, Answer], None]
    left: int = 0
    error: Exception | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def fail(self, error: Exception) -> None:
        self.error = self.error or error
        self.ended.set()


@dataclass
class Visit:
    """An address, and where on the way to its picture we are."""

    attempt: Attempt
    batch: Batch
    sha256: str | None = None  # that the list gives
    md5: str | None = None
    url: URL | None = None
    redirects: int = 0


@dataclass
class _Host:
    name: str
    waiting: deque[Visit] = field(default_factory=deque)
    active: int = 0
    queued: bool = False  # in the queue of hosts that may be asked, or waiting for a timer
    name_failures: int = 0


@dataclass
class _RobotsFile:
    """The robots.txt of an origin: the last request for it, and when a failed one is made again."""

    request: asyncio.Task[robots.Rules | str] | None = None
    failures: int = 0
    again: float = inf  # by the clock of the event loop


class Crawl:
    """`async with crawl.at_work(): await crawl.run(batch, visits)`, other batches at the same time."""

    def __init__(
        self,
        requester: Requester,
        courtesy: Courtesy,
        *,
        connections: int,
        per_host: int,
        tries: int,
        heed_robots: bool,
        pace: Pace,
        pool: Executor,
    ) -> None:
        self._requester, self._courtesy = requester, courtesy
        self._connections, self._per_host, self._tries = connections, per_host, tries
        self._heed_robots, self._pace, self._pool = heed_robots, pace, pool
        self._hosts: dict[str, _Host] = {}
        self._ready: asyncio.Queue[_Host] = asyncio.Queue()
        self._robots: dict[str, _RobotsFile] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._end: asyncio.Future[list[None]]  # of the workers, by an error or `stop`
        self._turn = asyncio.Lock()  # of the batch that begins next
        self._idle = 0  # connections
        self._spare = asyncio.Event()  # set when one becomes idle

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Keep connections at work meanwhile."""
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._connections)]
        self._end = asyncio.gather(*self._workers)
        try:
            yield
        finally:
            self.stop()
            await asyncio.gather(self._end, *self._workers, return_exceptions=True)

    def stop(self) -> None:
        """End without an answer: each `run` raises `CancelledError`."""
        for task in self._workers:
            task.cancel()

    async def run(self, batch: Batch, visits: Sequence[Visit]) -> None:
        """Ask for a batch's addresses; it begins when those before it leave a connection without work.

        An error of the batch is raised here and ends no other.
        """
        async with self._turn:
            while self._idle <= self._ready.qsize():
                self._spare.clear()
                await self._watched(self._spare)
            batch.left = len(visits)
            for number, visit in enumerate(visits):
                self._begin(visit)
                if number % _BEGUN_AT_ONCE == 0:
                    await asyncio.sleep(0)
        if visits:
            await self._watched(batch.ended)
        if batch.error is not None:
            raise batch.error

    async def _watched(self, event: asyncio.Event) -> None:
        """Wait for an event, or raise what ended the workers."""
        waiting = asyncio.create_task(event.wait())
        try:
            await asyncio.wait([waiting, self._end], return_when=asyncio.FIRST_COMPLETED)
            if self._end.done():
                self._end.result()
        finally:
            waiting.cancel()

    def _begin(self, visit: Visit) -> None:
        url, reason = self._requester.refusal(visit.attempt.url)
        visit.attempt.host = url.host if url else None
        if url is None or reason:
            self._finish(visit, Answer(reason))
        else:
            self._put(visit, url, 0)

    def _put(self, visit: Visit, url: URL, redirects: int) -> None:
        visit.url, visit.redirects = url, redirects
        name = url.host or ""
        host = self._hosts.setdefault(name, _Host(name))
        host.waiting.append(visit)
        self._offer(host)

    def _offer(self, host: _Host, delay: float = 0.0) -> None:
        if host.queued or not host.waiting or host.active >= self._per_host:
            return
        host.queued = True
        if delay:
            asyncio.get_running_loop().call_later(delay, self._ready.put_nowait, host)
        else:
            self._ready.put_nowait(host)

    async def _take(self) -> tuple[_Host, int, Visit]:
        """The next address whose host may be asked, with a slot of the host."""
        while True:
            self._idle += 1
            self._spare.set()
            host = await self._ready.get()
            self._idle -= 1
            host.queued = False
            rest = self._courtesy.rests_for(host.name)
            if rest > self._pace.patience:
                self._give_up(host, "rate_limited")
                continue
            if rest > 0:
                self._offer(host, rest)
                continue
            if host.name_failures >= _NAME_FAILURES:
                self._give_up(host, "dns_temporary")
                continue
            while host.waiting and host.waiting[0].batch.error is not None:
                host.waiting.popleft()
            if not host.waiting or host.active >= self._per_host:
                continue
            slot = self._courtesy.acquire(host.name)
            if slot is None:
                self._offer(host, self._pace.look_again)
                continue
            host.active += 1
            visit = host.waiting.popleft()
            self._offer(host)
            return host, slot, visit

    def _give_up(self, host: _Host, reason: str) -> None:
        while host.waiting:
            self._finish(host.waiting.popleft(), Answer(reason))

    async def _work(self) -> None:
        while True:
            host, slot, visit = await self._take()
            try:
                await self._visit(host, slot, visit)
            except Exception as error:
                visit.batch.fail(error)

    async def _visit(self, host: _Host, slot: int, visit: Visit) -> None:
        try:
            answer = await self._ask(visit)
        finally:
            self._courtesy.release(host.name, slot)
            host.active -= 1
            self._offer(host)
        host.name_failures = host.name_failures + 1 if answer.reason == "dns_temporary" else 0
        if answer.rest:
            self._courtesy.rest(host.name, answer.rest)
        if answer.body is not None:
            await asyncio.get_running_loop().run_in_executor(self._pool, visit.batch.examine, visit, answer)
        self._conclude(visit, answer)

    async def _ask(self, visit: Visit) -> Answer:
        assert visit.url is not None
        if visit.redirects == 0:
            visit.attempt.tries += 1
        if self._heed_robots:
            rules = await self._rules(visit.url)
            if isinstance(rules, str):
                return Answer(rules)
            if not rules.allows(visit.url.raw_path_qs):
                return Answer("robots_txt")
        return await self._requester.get(visit.url)

    async def _rules(self, url: URL) -> robots.Rules | str:
        """The rules of an address's robots.txt, or the reason why they are not known; each asked once at a time.

        A failure counts for all addresses of the origin until its back-off is over, and the last try's for good.
        """
        origin = str(url.origin())
        known = self._robots.setdefault(origin, _RobotsFile())
        now = asyncio.get_running_loop().time()
        if known.request is None or (known.request.done() and known.again <= now):
            known.request = asyncio.create_task(self._ask_rules(url, origin, known))
        return await asyncio.shield(known.request)

    async def _ask_rules(self, url: URL, origin: str, known: _RobotsFile) -> robots.Rules | str:
        text = self._courtesy.known_robots(origin)
        if text is None:
            found = await self._requester.text(url.origin().with_path("/robots.txt"), robots.LARGEST)
            if isinstance(found, str):
                return self._failed(known, found)
            if found.rest is not None:
                self._courtesy.rest(url.host or "", found.rest)
                return self._failed(known, "rate_limited", found.rest)
            if found.status >= 500:
                return self._failed(known, "robots_unreachable")
            text = found.text if found.status == 200 else ""
            self._courtesy.keep_robots(origin, text)
        known.again = inf
        return robots.parse(text)

    def _failed(self, known: _RobotsFile, reason: str, rest: float = 0.0) -> str:
        """Note when a robots.txt is asked for again; if its name has no answer now, `_Host.name_failures` decides."""
        now, backoff = asyncio.get_running_loop().time(), self._pace.backoff
        if reason == "dns_temporary":
            known.again = now
            return reason
        known.failures += 1
        if known.failures < self._tries:
            known.again = now + max(rest, backoff[min(known.failures, len(backoff)) - 1])
        else:
            known.again = inf
        return reason

    def _conclude(self, visit: Visit, answer: Answer) -> None:
        if answer.target is not None and answer.reason is None:
            self._redirect(visit, answer)
            return
        wait = None
        if answer.reason in PASSING and visit.attempt.tries < self._tries:
            backoff = self._pace.backoff
            wait = backoff[min(visit.attempt.tries, len(backoff)) - 1] * random.uniform(0.5, 1.5)
        if wait is None:
            self._finish(visit, answer)
            return
        first, _ = self._requester.refusal(visit.attempt.url)
        assert first is not None
        wait = 0.0 if answer.rest else wait  # the host's rest is the wait
        asyncio.get_running_loop().call_later(wait, self._put, visit, first, 0)

    def _redirect(self, visit: Visit, answer: Answer) -> None:
        assert visit.url is not None and answer.target is not None
        if visit.redirects == _REDIRECTS:
            self._finish(visit, Answer("redirects", answer.status))
            return
        url, reason = self._requester.refusal(str(url_of(answer.target, visit.url) or ""))
        if url is None or reason:
            named = str(url) if reason == OPTED_OUT else None
            self._finish(visit, Answer("redirects" if reason == "bad_address" else reason, answer.status, named=named))
        else:
            self._put(visit, url, visit.redirects + 1)

    def _finish(self, visit: Visit, answer: Answer) -> None:
        attempt = visit.attempt
        attempt.reason, attempt.status = answer.reason, answer.status
        attempt.outcome = _OUTCOMES.get(answer.reason or "", "failed") if answer.reason else "ok"
        attempt.media_type, attempt.content_usage = answer.media_type, answer.content_usage
        attempt.bytes = answer.bytes
        batch = visit.batch
        if batch.error is not None:
            return
        try:
            batch.done(visit, answer)
        except Exception as error:
            batch.fail(error)
        batch.left -= 1
        if not batch.left:
            batch.ended.set()


def may_pass(reason: str | None) -> bool:
    """Whether an address that failed for this reason is asked again by the last pass and by --retry-failed."""
    return reason in ASKED_AGAIN
