"""A unit of a download: the addresses of a range of keys, their pictures in one tar, and what became of each.

The web is no function: what a unit's bytes are is settled when it is first written. Another generation of it (the last
pass, `--retry-failed`, a damaged file) asks only for what failed and may pass, and for bytes that are damaged; all else
is carried over. So are pictures of earlier units with equal params when a list has changed. What was left out because
lists of opt-outs named it is asked for when they name it no more.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from aiohttp.abc import AbstractResolver

from flame_core.data.addresses.attempts import ATTEMPTS, OPTED_OUT, SCHEMA, TAR, Attempt
from flame_core.data.addresses.courtesy import Courtesy
from flame_core.data.addresses.crawl import Batch, Crawl, Pace, Visit, may_pass
from flame_core.data.addresses.examine import StoredPicture, examine, has_digest
from flame_core.data.addresses.opt_out import OptOutLists
from flame_core.data.addresses.public_sockets import SocketCheck
from flame_core.data.addresses.request import Answer, Requester
from flame_core.data.addresses.sorted_list import Address, read_addresses
from flame_core.data.addresses.tally import Tally
from flame_core.data.picture_bounds import PictureError
from flame_core.data.shards import add_member
from flame_core.digest import value_digest, write_json
from flame_core.params import UrlsSource, changed_values
from flame_core.processes.engines import is_ending
from flame_core.work import Unit, UnitRecord, WorkCache

ABOUT = "about.json"
FORMAT = 1  # of a unit; not the stage's version: a bumped one would fetch everything again
_NAMED = "named"  # of `about.json`: `_Known.named`, if there is any
_UNREADABLE = (OSError, ValueError, TypeError, pa.ArrowException)
_DECODERS, _RESOLVERS = 2, 32  # threads
_AT_ONCE = 4  # units of a process that may be waiting for their last answers
_POLITE = {"connections", "per_host", "timeout_s", "tries", "contact", "min_success"}  # who waits how long
_OF_LIST = {"kind", "path", "columns", "url_column", "caption_column", "language", "licence", "licence_column"}
_OF_LIST |= {"sha256_column", "md5_column", "keep_columns", "max_samples", "split"}

_Ask = Callable[[Batch, Sequence[Visit]], None]


def fetch_identity(params: UrlsSource) -> dict[str, Any]:
    """The params that decide about a picture's bytes; being more patient, for instance, fetches nothing again."""
    values = {name: value for name, value in changed_values(params).items() if name not in _POLITE | _OF_LIST}
    values["opt_out"] = {name: value for name, value in values.get("opt_out", {}).items() if name != "lists"}
    return values


@dataclass(frozen=True)
class FetchTask:
    """The rows `start` to `stop` of a sorted list.

    Attributes:
        earlier: folders of units with equal params whose keys overlap with these.
        last_pass: whether it is the pass after all units.
        shared: folder of what all processes of the download share.
    """

    addresses: Path
    start: int
    stop: int
    params: UrlsSource
    lists: OptOutLists
    work: WorkCache
    shared: Path
    pace: Pace
    earlier: tuple[Path, ...] = ()
    last_pass: bool = False
    resolver: Callable[[], AbstractResolver] | None = None


@dataclass(frozen=True)
class Fetched:
    """A finished unit, with its first key."""

    unit: Unit
    first: str
    task: FetchTask

    @property
    def may_be_asked_again(self) -> bool:
        return bool(self.unit.record.failures) and not self.unit.record.counts["last_pass"]


def fetch(tasks: Sequence[FetchTask]) -> list[Fetched]:
    """The units of tasks, found or made; with `last_pass`, their next generation if something may pass.

    A unit begins while the ones before it wait for their last answers or are written, so that connections stay at work.
    """
    return asyncio.run(_fetch_all(tasks))


async def _fetch_all(tasks: Sequence[FetchTask]) -> list[Fetched]:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_RESOLVERS))
    async with _crawling(tasks[0]) as crawl:

        def ask(batch: Batch, visits: Sequence[Visit]) -> None:
            asyncio.run_coroutine_threadsafe(crawl.run(batch, visits), loop).result()

        threads = ThreadPoolExecutor(_AT_ONCE)
        try:
            return await asyncio.gather(*(loop.run_in_executor(threads, _fetch, task, ask) for task in tasks))
        except asyncio.CancelledError:
            crawl.stop()
            raise
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            await loop.run_in_executor(None, threads.shutdown)  # units that have begun are finished


@asynccontextmanager
async def _crawling(task: FetchTask) -> AsyncIterator[Crawl]:
    params = task.params
    courtesy = Courtesy(task.shared, params.per_host)
    requester = Requester(
        SocketCheck(params.allow),
        contact=params.contact,
        connect_s=params.timeout_s.connect,
        read_s=params.timeout_s.read,
        total_s=params.timeout_s.total,
        max_bytes=params.max_bytes,
        heed_headers=params.opt_out.headers,
        lists=task.lists,
        scratch=task.shared,
        resolver=task.resolver() if task.resolver else None,
    )
    try:
        with ThreadPoolExecutor(_DECODERS) as pool:
            crawl = Crawl(
                requester,
                courtesy,
                connections=max(1, params.connections // 2) if task.last_pass else params.connections,
                per_host=params.per_host,
                tries=1 if task.last_pass else params.tries,
                heed_robots=params.opt_out.robots_txt,
                pace=task.pace,
                pool=pool,
            )
            async with crawl.at_work():
                yield crawl
    finally:
        await requester.close()
        courtesy.close()


def _fetch(task: FetchTask, ask: _Ask) -> Fetched:
    if is_ending():
        raise InterruptedError("the run ends")
    rows = read_addresses(task.addresses, task.start, task.stop)
    digest = unit_digest(task, rows)

    def again(record: UnitRecord) -> bool:
        if record.counts.get(OPTED_OUT) and _names_less(task.lists, task.work.folder / digest):
            return True
        tried = record.counts["last_pass"] if task.last_pass else not task.work.retry_failed
        return bool(record.failures) and not tried

    return Fetched(task.work.mend(digest, partial(_write, task, ask, rows), again), rows[0].key, task)


def unit_digest(task: FetchTask, rows: Iterable[Address]) -> str:
    """The digest of a unit: its addresses, the digests that the list gives them, and `fetch_identity`."""
    identity = [[row.url, row.sha256, row.md5] for row in rows]
    return value_digest(
        {"unit": "addresses", "format": FORMAT, "rows": identity, "params": fetch_identity(task.params)}
    )


@dataclass(frozen=True)
class _Place:
    """A picture's bytes, in a tar or in the spool."""

    path: Path
    offset: int
    size: int
    name: str  # of its member in a tar

    def read(self, file: BinaryIO) -> bytes:
        file.seek(self.offset)
        return file.read(self.size)


@dataclass
class _Known:
    """What is known about addresses, by key.

    Attributes:
        attempts: what became of them.
        places: of pictures.
        named: what a list of opt-outs names, as `Answer.named`.
    """

    attempts: dict[str, Attempt] = field(default_factory=dict)
    places: dict[str, _Place] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)


def _write(task: FetchTask, ask: _Ask, rows: list[Address], folder: Path, previous: Unit | None) -> UnitRecord:
    known = _Known()
    wanted = {row.key: row for row in rows}
    for earlier in ([previous.folder] if previous else []) + list(task.earlier):
        _carry(earlier, wanted, task.lists, known)
    tries: dict[str, int] = {}
    with suppress(OSError, pa.ArrowException):  # of a damaged unit
        tries = _tries(previous.folder) if previous else {}
    asked = [row for row in rows if row.key not in known.attempts]
    spool = folder / "spool"
    found = _ask_for(task, ask, asked, spool)
    for key, attempt in found.attempts.items():
        known.attempts[key] = replace(attempt, tries=attempt.tries + tries.get(key, 0))
    known.places |= found.places
    known.named |= found.named
    ordered = [known.attempts[row.key] for row in rows]
    _write_tar(folder / TAR, ordered, known.places)
    spool.unlink(missing_ok=True)
    pq.write_table(pa.Table.from_pylist([vars(row) for row in ordered], schema=SCHEMA), folder / ATTEMPTS)
    about = {"params": value_digest(fetch_identity(task.params)), "first": rows[0].key, "last": rows[-1].key}
    write_json(folder / ABOUT, {**about, **({_NAMED: dict(sorted(known.named.items()))} if known.named else {})})
    counts = Counter(map(_told, ordered))
    failures = {row.key: row.reason or "" for row in ordered if row.outcome == "failed" and may_pass(row.reason)}
    return UnitRecord({**dict(sorted(counts.items())), "last_pass": int(task.last_pass)}, failures)


def _told(attempt: Attempt) -> str:
    """`ok`, or why there is no picture."""
    return attempt.outcome if attempt.outcome == "ok" else attempt.reason or attempt.outcome


def _tries(folder: Path) -> dict[str, int]:
    """{key: how often a failed address was asked}."""
    rows = pq.ParquetFile(folder / ATTEMPTS).read(["key", "tries", "outcome"]).to_pylist()
    return {row["key"]: row["tries"] for row in rows if row["outcome"] == "failed"}


def _attempts(folder: Path) -> list[Attempt]:
    """The rows of a unit."""
    return [Attempt(**values) for values in pq.ParquetFile(folder / ATTEMPTS).read().to_pylist()]


def _named(folder: Path) -> dict[str, str]:
    """`_Known.named` of a unit; nothing if that is damaged."""
    try:
        return dict(json.loads((folder / ABOUT).read_bytes()).get(_NAMED, {}))
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _is_named(lists: OptOutLists, row: Attempt, named: Mapping[str, str]) -> bool:
    """Whether lists of opt-outs still name an address that was left out because of them."""
    if lists.names_address(row.url, row.host) or row.sha256_received in lists.sha256:
        return True
    return row.key in named and lists.names(named[row.key])


def _names_less(lists: OptOutLists, folder: Path) -> bool:
    """Whether lists of opt-outs name an address no more that a unit left out because of them."""
    try:
        named = _named(folder)
        return not all(_is_named(lists, row, named) for row in _attempts(folder) if row.reason == OPTED_OUT)
    except _UNREADABLE:
        return False  # a damaged unit is mended anyway


def _carry(folder: Path, wanted: Mapping[str, Address], lists: OptOutLists, known: _Known) -> None:
    """Take over the rows of another generation or unit.

    Except failures that may pass, damaged pictures, and what lists of opt-outs name no more.
    """
    try:
        named = _named(folder)
        with (folder / TAR).open("rb") as tar:
            for row in _attempts(folder):
                if row.key not in wanted or row.key in known.attempts or wanted[row.key].url != row.url:
                    continue
                if row.reason == OPTED_OUT and not _is_named(lists, row, named):
                    continue
                if row.outcome != "ok" and not may_pass(row.reason):
                    known.attempts[row.key] = row
                    if row.key in named:
                        known.named[row.key] = named[row.key]
                elif row.outcome == "ok" and row.offset is not None and row.size is not None:
                    tar.seek(row.offset - tarfile.BLOCKSIZE)
                    name = tar.read(100).rstrip(b"\0").decode("ascii", "replace")
                    place = _Place(folder / TAR, row.offset, row.size, name)
                    if hashlib.sha256(place.read(tar)).hexdigest() == row.sha256_stored:
                        known.attempts[row.key], known.places[row.key] = row, place
    except _UNREADABLE:
        return  # what cannot be read is fetched


def _write_tar(path: Path, rows: Iterable[Attempt], places: Mapping[str, _Place]) -> None:
    """Write the pictures in the order of their keys, and note their places in `rows`."""
    files: dict[Path, BinaryIO] = {}
    try:
        with path.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for row in rows:
                if (place := places.get(row.key)) is not None:
                    if place.path not in files:
                        files[place.path] = place.path.open("rb")
                    content = place.read(files[place.path])
                    row.offset, row.size = add_member(tar, place.name, content), len(content)
    finally:
        for source in files.values():
            source.close()


def _ask_for(task: FetchTask, ask: _Ask, rows: list[Address], spool: Path) -> _Known:
    """What became of addresses; their pictures are in `spool`."""
    found = _Known()
    tally = Tally(task.shared / "progress")
    stored: dict[str, tuple[StoredPicture, bool]] = {}  # and whether its digest is another one than that of the list

    def look(visit: Visit, answer: Answer) -> None:
        """In a thread: what the bytes are."""
        assert answer.body is not None
        with answer.body as body:
            content = body.read()
        answer.body = None
        attempt = visit.attempt
        attempt.sha256_received = hashlib.sha256(content).hexdigest()
        if attempt.sha256_received in task.lists.sha256:
            answer.reason = OPTED_OUT
            return
        changed = not has_digest(content, visit.sha256, visit.md5)
        if changed and task.params.changed == "drop":
            answer.reason = "hash_changed"
            return
        try:
            picture = examine(content, task.params, frozenset(task.lists.hashes))
        except PictureError as error:
            answer.reason = error.reason
            answer.named = error.detail if error.reason == OPTED_OUT else None
            return
        attempt.sha256_stored = hashlib.sha256(picture.content).hexdigest()
        attempt.width, attempt.height = picture.width, picture.height
        stored[attempt.key] = (picture, changed)

    with spool.open("wb") as file:

        def done(visit: Visit, answer: Answer) -> None:
            attempt = visit.attempt
            if attempt.outcome == "ok":
                picture, changed = stored.pop(attempt.key)
                attempt.reason = "hash_changed" if changed else None
                name = f"{attempt.key}.{picture.suffix}"
                found.places[attempt.key] = _Place(spool, file.tell(), len(picture.content), name)
                file.write(picture.content)
            found.attempts[attempt.key] = attempt
            if answer.named is not None:
                found.named[attempt.key] = answer.named
            tally.add(_told(attempt))

        batch = Batch(look, done)
        ask(batch, [Visit(Attempt(row.key, row.url), batch, row.sha256, row.md5) for row in rows])
    tally.write()
    return found
