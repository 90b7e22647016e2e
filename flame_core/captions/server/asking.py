"""Asks a chat server for all captions that are missing, in one event loop.

Shards are read one after the other, and `FLAME_CAPTION_REQUESTS` requests are in flight. What failed for a reason that
may pass is tried again after a while, and once more after all other samples. If a server is down, refuses the key or
knows no such model, the stage stops with the server's message; the answers that came are kept.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from flame_core.captions.captioner import Failure
from flame_core.captions.server.answers import Answer, Answers
from flame_core.captions.server.client import ChatClient
from flame_core.captions.server.progress import Spoken
from flame_core.captions.server.question import Question, identity, question
from flame_core.captions.server.reply import PASSING, STOPS, Reply
from flame_core.captions.server.traffic import Traffic
from flame_core.data.shards import read_shard
from flame_core.digest import value_digest
from flame_core.errors import FlameError, InputError, ParamsError, ResourceError
from flame_core.params import ServerCaptioner

_READ = 16  # samples that are read ahead at a time
_DOWN = 5  # samples in a row that used up their tries at a server that is not there, or has never answered
_BROKEN = 50  # the same at a server that is there and has answered before
_REJECTED = 5  # requests in a row that a server rejected before it ever answered one
_NOT_THERE = frozenset({"refused", "no_host", "dns_temporary"})


@dataclass(frozen=True)
class Pace:
    """How patient the questions are. None of this changes a caption.

    Attributes:
        tries: of a request, before the last pass.
        backoff: seconds before the next tries, each times 0.5 to 1.5.
        rest: seconds without a request after a first 429 that asks for none; doubled for each that follows.
        patience: seconds of 429 without an answer, after which the stage stops.
    """

    tries: int = 4
    backoff: tuple[float, ...] = (1.0, 4.0, 16.0)
    rest: float = 2.0
    patience: float = 1800.0


@dataclass(frozen=True)
class Server:
    """Where the questions go, by the settings."""

    address: str
    key: str | None
    requests: int
    timeout: float


def ask(
    shards: Sequence[Path],
    captioners: Sequence[ServerCaptioner],
    answers: Callable[[], Answers],
    server: Server | None,
    *,
    samples: int,
    again: bool = False,
    pace: Pace | None = None,
) -> None:
    """Get the answers for all samples of these shards that have none.

    Args:
        shards: the tars.
        captioners: of each kind that a server writes.
        answers: opens the file of answers.
        server: None if no address is set, which is an error only if something has to be asked.
        samples: how many the shards hold.
        again: whether failures that are final are asked again too.
        pace: for tests.

    Raises:
        InputError: a shard is damaged, or the server rejects everything.
        ParamsError: the address is not set, or the key or model is refused.
        ResourceError: the server does not answer, or there is no credit left.
    """
    kept = answers()
    try:
        asyncio.run(_ask(shards, captioners, kept, server, samples, again, pace or Pace()))
    finally:
        kept.close()


async def _ask(
    shards: Sequence[Path],
    captioners: Sequence[ServerCaptioner],
    answers: Answers,
    server: Server | None,
    samples: int,
    again: bool,
    pace: Pace,
) -> None:
    with Spoken(samples * len(captioners)) as spoken:
        asking = _Asking(captioners, answers, server, pace, spoken)
        try:
            if again:
                await asking.run(shards, lambda answer: not answer.ok, patient=True)
            else:
                await asking.run(shards, lambda answer: answer.may_pass)
            if asking.left:
                await asking.run(sorted(asking.left), lambda answer: answer.may_pass, last=True, patient=True)
        finally:
            await asking.close()


class _Asking:
    def __init__(
        self, captioners: Sequence[ServerCaptioner], answers: Answers, server: Server | None, pace: Pace, spoken: Spoken
    ) -> None:
        self._captioners, self._answers, self._server = captioners, answers, server
        self._pace, self._spoken = pace, spoken
        self._client = ChatClient(server.address, server.key, server.timeout) if server else None
        self._writers = {id(params): value_digest(identity(params)) for params in captioners}
        self._open: set[str] = set()  # requests that are queued or in flight
        self._answered: float | None = None  # when this server last did, in this run
        self._start = time.monotonic()
        self._failed = self._rejected = 0  # in a row
        self._held: list[tuple[str, Answer]] = []  # rejections that may concern every request
        self.left: set[Path] = set()  # shards with samples that may pass

    async def close(self) -> None:
        if self._client:
            await self._client.close()

    async def run(
        self,
        shards: Sequence[Path],
        wanted: Callable[[Answer], bool],
        *,
        last: bool = False,
        patient: bool = False,
    ) -> None:
        """Ask about all samples without an answer, and those whose failure is wanted again.

        Args:
            shards: the tars.
            wanted: of a failure.
            last: in the last pass each is tried once.
            patient: whether mostly such are asked as have failed before, which says nothing about the server.
        """
        most = self._server.requests if self._server else 1
        traffic = Traffic(max(1, most // 2) if last else most, self._pace.rest)
        queue: asyncio.Queue[tuple[Path, Question] | None] = asyncio.Queue(2 * most)
        tasks = [asyncio.create_task(self._read(shards, wanted, queue, most, last))]
        tries = 1 if last else self._pace.tries
        tasks += [asyncio.create_task(self._work(queue, traffic, tries, patient)) for _ in range(most)]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in ended:
                task.result()  # raises what a task raised
            self._write_held()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(
        self,
        shards: Sequence[Path],
        wanted: Callable[[Answer], bool],
        queue: asyncio.Queue[tuple[Path, Question] | None],
        workers: int,
        last: bool,
    ) -> None:
        """Put what has to be asked into the queue, each request once."""
        found = self._questions(shards)
        while part := await asyncio.to_thread(lambda: list(islice(found, _READ))):
            for shard, each in part:
                if isinstance(each, Failure):
                    self._spoken.add("not asked", last)
                    continue
                asked = each.digest in self._open
                answer = None if asked else self._answers.get(each.digest)
                if asked or (answer is not None and not wanted(answer)):
                    self._spoken.add("found", last)
                    continue
                self._open.add(each.digest)
                await queue.put((shard, each))
        for _ in range(workers):
            await queue.put(None)

    def _questions(self, shards: Sequence[Path]) -> Iterator[tuple[Path, Question | Failure]]:
        for shard in shards:
            for sample in read_shard(shard):
                for params in self._captioners:
                    yield shard, question(params, sample)

    async def _work(
        self, queue: asyncio.Queue[tuple[Path, Question] | None], traffic: Traffic, most_tries: int, patient: bool
    ) -> None:
        while (item := await queue.get()) is not None:
            shard, each = item
            reply, tries = await self._reply(each, traffic, most_tries)
            self._judge(each, reply, patient)
            before = self._answers.get(each.digest)
            self._keep(each, Answer.of(reply, tries + (before.tries if before else 0)))
            self._open.discard(each.digest)
            self._spoken.add(reply.reason or "ok", most_tries == 1, reply)
            if reply.reason in PASSING and most_tries > 1:
                self.left.add(shard)

    def _keep(self, each: Question, answer: Answer) -> None:
        """Write an answer; a rejection only when others are answered, since a wrong model makes all of them fail."""
        if answer.reason == "rejected" and not self._known(each.params):
            self._held.append((each.digest, answer))
            return
        self._answers.put(each.digest, answer)
        if answer.ok:
            self._write_held()

    def _write_held(self) -> None:
        while self._held:
            self._answers.put(*self._held.pop())

    def _known(self, params: ServerCaptioner) -> bool:
        """Whether a server has answered with these params, in this run or before."""
        return self._answered is not None or self._answers.has_written(self._writers[id(params)])

    async def _reply(self, each: Question, traffic: Traffic, most_tries: int) -> tuple[Reply, int]:
        """The last reply, after so many tries; a server that wants fewer requests is not counted as one."""
        tries = 0
        while True:
            async with traffic.slot():
                reply = await self._asked(each)
            if reply.reason == "rate_limited":
                traffic.limited(reply.rest)
                self._spoken.add_wait()
                if time.monotonic() - (self._answered or self._start) > self._pace.patience:
                    assert self._client is not None
                    raise _stopped(self._client.address, each.params.model, reply)
                continue
            tries += 1
            if reply.reason not in PASSING:
                traffic.answered()
                return reply, tries
            if tries >= most_tries:
                return reply, tries
            wait = self._pace.backoff[min(tries, len(self._pace.backoff)) - 1]
            await asyncio.sleep(wait * random.uniform(0.5, 1.5))

    async def _asked(self, each: Question) -> Reply:
        if self._client is None:
            raise ParamsError(
                f"captions of {each.params.model} are missing, and no server is named: set FLAME_CAPTION_SERVER, such "
                "as FLAME_CAPTION_SERVER=http://localhost:8000/v1, and FLAME_CAPTION_KEY if it wants a key"
            )
        reply = await self._client.ask(each.body())
        if reply.reason in STOPS:
            raise _stopped(self._client.address, each.params.model, reply)
        return reply

    def _judge(self, each: Question, reply: Reply, patient: bool) -> None:
        """Stop if what became of a sample says that the others will fare no better."""
        assert self._client is not None
        if reply.reason is None:
            if self._answered is None:
                for writer in self._writers.values():
                    self._answers.note_writer(writer)
            self._answered = time.monotonic()
        self._failed = self._failed + 1 if reply.reason in PASSING else 0
        self._rejected = self._rejected + 1 if reply.reason == "rejected" else 0
        known = self._known(each.params)
        if reply.reason in _NOT_THERE or not known:
            stop = self._failed >= _DOWN
        else:
            stop = self._failed >= _BROKEN and not patient
        if reply.reason == "rejected" and self._answered is None:
            stop = reply.status == 404 or (self._rejected >= _REJECTED and not known)
        if stop:
            raise _stopped(self._client.address, each.params.model, reply)


def _stopped(address: str, model: str, reply: Reply) -> FlameError:
    """Why nothing more is asked."""
    said = f", which says: {reply.message}" if reply.message else ""
    status = f" with status {reply.status}" if reply.status else ""
    again = "the answers that came are kept, so run the same command again"
    match reply.reason:
        case "key":
            return ParamsError(f"{address} does not accept FLAME_CAPTION_KEY{said}")
        case "credit":
            return ResourceError(f"{address} wants to be paid first{said}; then {again}")
        case "tls":
            return ResourceError(f"{address}: its certificate is not valid for this machine")
        case "address":
            return ParamsError(
                f"{address} answers{status}{said}; FLAME_CAPTION_SERVER must be the address of an API, which usually "
                "ends in /v1"
            )
        case "rejected" if reply.status == 404:
            return ParamsError(f"{address} knows no model {model}, or is no chat API (its address ends in /v1){said}")
        case "rejected":
            return InputError(f"{address} rejects every request for {model}{status}{said}")
    return ResourceError(
        f"{address} does not answer for {model} ({reply.reason}{status}){said}; is it running? When it is, {again}"
    )
