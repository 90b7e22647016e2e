"""The source `kind: urls`: a list of addresses, whose pictures are fetched.

Steps: the list is sorted by key (`addresses/sorted_list.py`), units of about 2,000 keys are fetched by several
processes (`addresses/unit.py`), what may pass is asked once more after all units, and the pairs are listed. The
pictures stay in the tars of the units; `attempts.parquet` says what became of every address.
"""

from __future__ import annotations

import json
import shutil
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from aiohttp.abc import AbstractResolver

from flame_core.data import chunks
from flame_core.data.addresses.address_list import LIST, ListReader
from flame_core.data.addresses.attempts import ATTEMPTS, OPTED_OUT, SCHEMA, TAR
from flame_core.data.addresses.courtesy import tidy
from flame_core.data.addresses.crawl import Pace
from flame_core.data.addresses.looks import named_by_looks
from flame_core.data.addresses.opt_out import OptOutLists, read_lists
from flame_core.data.addresses.request import LONGEST_REST
from flame_core.data.addresses.sorted_list import ADDRESSES, Address, read_addresses, read_keys, write_sorted
from flame_core.data.addresses.tally import followed
from flame_core.data.addresses.unit import ABOUT, Fetched, FetchTask, fetch, fetch_identity
from flame_core.data.forgotten import FORGOTTEN, NOTHING, Forgotten
from flame_core.data.sources import ImageRef, Problem, RawPair
from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.kept_columns import Records
from flame_core.data.sources.listing import SOURCE
from flame_core.data.sources.listing_writer import write_listing
from flame_core.data.sources.record import RECORDS, RecordReader
from flame_core.data.sources.splits import in_split
from flame_core.data.sources.table_files import table_files
from flame_core.digest import file_sha256, value_digest, write_json
from flame_core.errors import InputError
from flame_core.params import UrlsSource
from flame_core.params.urls import NAMELESS
from flame_core.processes.engines import map_units
from flame_core.settings import settings
from flame_core.work import Unit, UnitRecord, WorkCache

_PER_UNIT = 2000  # addresses
_IN_LINE = 4  # units of one process
_LIST = "list.json"
_BEYOND = "beyond_max_samples"


class Urls:
    """The source `kind: urls`; `pace` and `resolver` are for tests."""

    def __init__(
        self,
        params: UrlsSource,
        path: Path,
        lists: Sequence[Path] = (),
        forgotten: Forgotten = NOTHING,
        *,
        pace: Pace | None = None,
        resolver: Callable[[], AbstractResolver] | None = None,
    ) -> None:
        self._params, self._path, self._lists, self._forgotten = params, path, lists, forgotten
        self._pace, self._resolver = pace or Pace(), resolver

    def pictures(self, raw: Path) -> Path:
        return raw

    def download(self, work: WorkCache) -> Unit:
        lists = read_lists(self._lists)
        lists.sha256 |= self._forgotten.sha256
        lists.hashes |= self._forgotten.hashes
        addresses = self._sorted(work)
        if addresses.record.counts["kept"] > NAMELESS and self._params.contact is None:
            raise InputError(
                f"{self._path} lists {addresses.record.counts['kept']:,} addresses: `contact` of the source must give "
                "an e-mail address or a page, so that people whose servers are asked can reach you"
            )
        units = self._fetch(work, addresses, lists)
        return self._listed(work, addresses, units, lists)

    def _sorted(self, work: WorkCache) -> Unit:
        """The unit with the sorted list."""
        files = table_files(self._path, LIST)
        fields = {"columns", "url_column", "caption_column", "licence_column", "sha256_column", "md5_column"}
        inputs = {
            "kind": "addresses",
            "records": RECORDS,
            "files": [[path.name, file_sha256(path)] for path in files],
            "params": self._params.model_dump(include=fields | {"keep_columns", "max_samples"}),
            **self._forgotten.identity,
        }

        def write(folder: Path) -> UnitRecord:
            problems = Problems()
            reader = ListReader(self._params, problems, folder)
            left_out: set[str] = set()
            wanted = self._wanted(reader.addresses(files), left_out)
            found = write_sorted(folder, wanted, self._params.max_samples)
            rows = [vars(problem) for problem in problems.rows()]
            told: dict[str, Any] = {FORGOTTEN: len(left_out)} if left_out else {}
            if found.left_out:
                told[_BEYOND] = {"count": found.left_out, "first": found.first_left_out}
            write_json(folder / _LIST, {"problems": rows, **told})
            return UnitRecord({"listed": found.listed, "kept": found.kept})

        unit = work.get(inputs, write)
        if not unit.record.counts["kept"]:
            raise InputError(f"{self._path} lists no address")
        return unit

    def _wanted(self, addresses: Iterable[Address], left_out: set[str]) -> Iterator[Address]:
        """The addresses that are not forgotten; keys of the others are added to `left_out`."""
        for address in addresses:
            if self._forgotten.names_address(address.url) or self._forgotten.names(address.key):
                left_out.add(address.key)
            else:
                yield address

    def _fetch(self, work: WorkCache, addresses: Unit, lists: OptOutLists) -> list[Fetched]:
        shared = work.folder.with_name("download-hosts")
        progress = shared / "progress"
        shutil.rmtree(progress, ignore_errors=True)
        tidy(shared, LONGEST_REST)
        bounds = chunks.cut(read_keys(addresses.folder), _PER_UNIT)
        earlier = _earlier(work, self._params, addresses.folder, bounds)
        tasks = [
            FetchTask(addresses.folder, start, stop, self._params, lists, work, shared, self._pace, places)
            for (start, stop), places in zip(bounds, earlier, strict=True)
        ]
        tasks = [replace(task, resolver=self._resolver) for task in tasks]
        with followed(progress):
            fetched = _mapped(tasks, "fetch pictures")
        again = [number for number, unit in enumerate(fetched) if unit.may_be_asked_again]
        if again:
            shutil.rmtree(progress, ignore_errors=True)
            patient = replace(self._pace, patience=LONGEST_REST)
            late = [replace(tasks[number], last_pass=True, pace=patient) for number in again]
            with followed(progress):
                found = _mapped(late, "ask again")
            for number, unit in zip(again, found, strict=True):
                fetched[number] = unit
        shutil.rmtree(progress, ignore_errors=True)
        return fetched

    def _listed(self, work: WorkCache, addresses: Unit, units: list[Fetched], lists: OptOutLists) -> Unit:
        """The unit with the list of pairs, and the pictures' tars where they are."""
        tars = {f"pictures/{unit.first[5:].replace('/', '')}.tar": unit for unit in units}
        named = lists.hashes - self._forgotten.hashes  # `ingest` leaves out the forgotten ones
        alike = named_by_looks([each.unit for each in units], named, self._params, work)
        inputs = {
            "kind": "urls",
            "addresses": addresses.sha256[ADDRESSES],
            "problems": addresses.sha256[_LIST],
            "units": [unit.unit.sha256 for unit in units],
            "records": RECORDS,
            "lists": [file_sha256(path) for path in self._lists],
            "params": self._params.model_dump(include={"language", "licence", "keep_columns"}),
            **({"alike": sorted(alike)} if alike else {}),
            **({"split": self._params.split} if self._params.split else {}),
            **self._forgotten.identity,
        }
        unit = work.get(inputs, lambda folder: self._list(folder, addresses, tars, lists, alike))
        sha256 = {**unit.sha256, **{name: each.unit.sha256[TAR] for name, each in tars.items()}}
        return replace(unit, sha256=sha256, elsewhere={name: each.unit.file(TAR) for name, each in tars.items()})

    def _list(
        self, folder: Path, addresses: Unit, tars: dict[str, Fetched], lists: OptOutLists, alike: set[str]
    ) -> UnitRecord:
        reasons: Counter[tuple[str, str]] = Counter()
        first: dict[tuple[str, str], str] = {}
        reader = RecordReader(("captions",), self._params.language, None, self._params.licence)
        problems, unused = Problems(), Unused()
        about_list = json.loads(addresses.file(_LIST).read_bytes())
        for row in about_list["problems"]:
            problems.append(Problem(**row))
        if beyond := about_list.get(_BEYOND):
            unused.add(_BEYOND, beyond["first"], "addresses", beyond["count"])

        def pairs(attempts: pq.ParquetWriter) -> Iterator[tuple[RawPair, Records]]:
            for name, unit in tars.items():
                rows = pq.ParquetFile(unit.unit.file(ATTEMPTS)).read().to_pylist()
                listed = read_addresses(unit.task.addresses, unit.task.start, unit.task.stop)
                for row, address in zip(rows, listed, strict=True):
                    if row["outcome"] == "ok" and (
                        row["sha256_received"] in lists.sha256
                        or row["key"] in alike
                        or lists.names_address(row["url"], row["host"])
                    ):
                        row |= {"outcome": "opted_out", "reason": OPTED_OUT}
                    kind = (row["outcome"], row["reason"] or "")
                    reasons[kind] += 1
                    first.setdefault(kind, row["key"])
                    if row["outcome"] == "ok":
                        image = ImageRef(folder / name, row["offset"], row["size"], row["sha256_stored"])
                        records = address.records
                        columns = [record.get("columns") or {} for record in records]
                        pair = reader.pair(address.key, image, records, unused=unused)
                        yield in_split(pair, self._params.split), columns
                attempts.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))

        with pq.ParquetWriter(folder / ATTEMPTS, SCHEMA, compression="zstd") as attempts:
            counts = addresses.record.counts
            about: dict[str, Any] = {"kind": "urls", "listed": counts["listed"], "addresses": counts["kept"]}
            record = write_listing(
                folder,
                folder,
                pairs(attempts),
                about=about,
                problems=problems,
                unused=unused,
                keep_columns=self._params.keep_columns,
                forgotten=self._forgotten,
            )
        record["outcomes"] = [
            {"outcome": outcome, "reason": reason, "count": number, "first": first[outcome, reason]}
            for (outcome, reason), number in sorted(reasons.items())
        ]
        if left_out := about_list.get(FORGOTTEN, 0):
            record[FORGOTTEN] = record.get(FORGOTTEN, 0) + left_out
        write_json(folder / SOURCE, record)
        return UnitRecord({"pairs": record["pairs"]})


def _mapped(tasks: Sequence[FetchTask], title: str) -> list[Fetched]:
    """`fetch` of all tasks: in lines, since the connections of a process are not all at work at the end of a line.

    In lines of one unit on a Ray cluster, which may have a processor for each.
    """
    own = settings()
    workers = own.workers if own.engine == "local" else len(tasks)
    rounds = ceil(len(tasks) / (workers * _IN_LINE))
    length = ceil(len(tasks) / (workers * rounds))
    lines = [tasks[start : start + length] for start in range(0, len(tasks), length)]
    return [unit for line in map_units(fetch, lines, workers, title, "line of units") for unit in line]


def _earlier(
    work: WorkCache, params: UrlsSource, addresses: Path, bounds: Sequence[tuple[int, int]]
) -> list[tuple[Path, ...]]:
    """For each chunk, the folders of units with equal params whose keys overlap: only new addresses are asked."""
    wanted = value_digest(fetch_identity(params))
    known: list[tuple[str, str, Path]] = []
    for path in work.folder.glob(f"*/{ABOUT}"):
        with suppress(OSError, ValueError, KeyError):
            about = json.loads(path.read_bytes())
            if about["params"] == wanted and not path.parent.name.startswith("."):
                known.append((about["first"], about["last"], path.parent))
    if not known:
        return [() for _ in bounds]
    known.sort()
    starts = [first for first, _, _ in known]
    ends = {row for start, stop in bounds for row in (start, stop - 1)}
    keys = {row: key for row, key in enumerate(read_keys(addresses)) if row in ends}
    return [
        tuple(folder for _, last, folder in known[: bisect_right(starts, keys[stop - 1])] if last >= keys[start])
        for start, stop in bounds
    ]
