"""Existing webdataset shards, read in place: as img2dataset, CC3M-wds and the like write them.

A sample is what stands under one key in a tar: a picture (`jpg`, `jpeg`, `png`, `webp`), a caption (`txt`) and a JSON
object (`json`, see `record.py`). Pictures are listed as ranges of the tar. A tar that is cut off or damaged gives all
samples that can be read, and is named as a problem.
"""

from __future__ import annotations

import fnmatch
import hashlib
import logging
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from flame_core.data.shards import Split
from flame_core.data.sources import ImageRef, Problem, RawPair
from flame_core.data.sources.keys import safe_key
from flame_core.data.sources.listing import SourceFile, write_listing
from flame_core.data.sources.manifest import make_manifest
from flame_core.data.sources.record import RecordReader, json_object
from flame_core.errors import InputError
from flame_core.params import WebdatasetSource
from flame_core.work import Ledger, Unit, WorkCache

PICTURES = ("jpg", "jpeg", "png", "webp")
_NAME = re.compile(r"^(?P<key>(?:.*/)?[^/.]+)\.(?P<kind>[^/]*)$")
_BLOCK = tarfile.BLOCKSIZE
log = logging.getLogger(__name__)


@dataclass
class TarSample:
    """The parts of a sample that matter here."""

    key: str
    image: ImageRef | None = None
    texts: list[str] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)


class Webdataset:
    """The source `kind: webdataset`."""

    def __init__(self, params: WebdatasetSource, folder: Path) -> None:
        self._params = params
        self._folder = folder
        self._reader = RecordReader((params.caption_field,), params.language, params.group_field, params.licence)

    def pictures(self, raw: Path) -> Path:
        return self._folder

    def download(self, work: WorkCache) -> Unit:
        if not self._folder.is_dir():
            raise InputError(f"{self._folder} is not a folder; `path` of the source must name one")
        tars = sorted(path for path in self._folder.glob(self._params.shards) if path.is_file())
        if not tars:
            raise InputError(f"{self._folder} holds no file {self._params.shards!r}; `shards` must match some")
        val = self._params.val_shards
        if val and not any(fnmatch.fnmatch(path.name, val) for path in tars):
            raise InputError(f"{self._folder}: none of the shards matches val_shards {val!r}")
        problems: list[Problem] = []
        manifest = make_manifest(self._folder, tars, problems)
        inputs = {
            "params": self._params.model_dump(exclude={"path"}),
            "files": [[entry.path, entry.size, entry.sha256] for entry in manifest],
            "problems": [problem.file for problem in problems],
        }
        return work.get({"kind": "webdataset", **inputs}, lambda folder: self._list(folder, manifest, problems))

    def _list(self, folder: Path, manifest: list[SourceFile], problems: list[Problem]) -> Ledger:
        about = {"kind": "webdataset"}
        pairs = self._pairs(manifest, problems)
        record = write_listing(folder, self._folder, pairs, about=about, problems=problems, manifest=manifest)
        failures = {problem["file"]: problem["reason"] for problem in record["problems"]}
        return Ledger(counts={"pairs": record["pairs"]}, failures=failures)

    def _pairs(self, manifest: list[SourceFile], problems: list[Problem]) -> Iterator[RawPair]:
        limit = self._params.max_samples
        taken: dict[Split | None, int] = {}
        for entry in manifest:
            split = self._split(entry.path)
            shard = entry.path.rpartition(".")[0]
            if limit is not None and taken.get(split, 0) >= limit:
                continue
            for sample in read_samples(self._folder, entry.path, problems):
                if limit is not None and taken.get(split, 0) >= limit:
                    break
                taken[split] = taken.get(split, 0) + 1
                key = safe_key(f"{shard}/{sample.key}")
                pair = self._reader.pair(key, sample.image, sample.records, texts=sample.texts)
                yield pair if split is None else replace(pair, split=split)

    def _split(self, shard: str) -> Split | None:
        if self._params.val_shards is None:
            return None
        return "val" if fnmatch.fnmatch(Path(shard).name, self._params.val_shards) else "train"


def read_samples(folder: Path, shard: str, problems: list[Problem]) -> Iterator[TarSample]:
    """The samples of a tar, in order. What is damaged is left out and becomes a problem that names the tar."""
    found = len(problems)
    sample: TarSample | None = None
    for key, kind, content, place in _members(folder / shard, shard, problems):
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = TarSample(key)
        if kind in PICTURES:
            if sample.image is None:
                sample.image = ImageRef(folder / shard, place, len(content), hashlib.sha256(content).hexdigest())
        elif kind == "txt":
            sample.texts.append(content.decode("utf-8", "replace"))
        else:
            if (record := json_object(content)) is not None:
                sample.records.append(record)
            else:
                problems.append(Problem(shard, "damaged_file", f"{key}.json is not a JSON object"))
    if sample is not None:
        yield sample
    for problem in problems[found:]:
        log.warning("%s: %s", folder / shard, problem.detail)


def _members(path: Path, shard: str, problems: list[Problem]) -> Iterator[tuple[str, str, bytes, int]]:
    """(key, kind, content, offset) of the pictures, texts and JSON objects of a tar, as far as they can be read."""
    size = path.stat().st_size
    end = 0  # of what was read without a fault
    last = "(start)"

    def damaged(detail: str) -> None:
        problems.append(Problem(shard, "damaged_file", f"{detail} behind {last} (byte {end:,} of {size:,})"))

    with path.open("rb") as file:
        for member in _headers(path):
            if member.offset > end and not _is_zero(file, end, member.offset):
                damaged("damaged")
            if member.offset_data + member.size > size:
                end = member.offset
                damaged(f"cut off: {member.name} is not complete")
                return
            end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
            last = member.name
            match = _NAME.match(member.name) if member.type in tarfile.REGULAR_TYPES and not member.issparse() else None
            kind = match["kind"].lower() if match else ""
            if match and kind in (*PICTURES, "txt", "json"):
                file.seek(member.offset_data)
                yield match["key"], kind, file.read(member.size), member.offset_data
        if size < end + _BLOCK:
            damaged("cut off: there is no end mark")
        elif not _is_zero(file, end, size):
            damaged("damaged")


def _headers(path: Path) -> Iterator[tarfile.TarInfo]:
    """All headers that can be read; damaged stretches are passed over."""
    try:
        with tarfile.open(path, "r:", ignore_zeros=True, errors="replace") as tar:
            yield from tar
    except (tarfile.TarError, OSError, ValueError):  # nothing more can be read; `_members` sees where it ended
        return


def _is_zero(file: BinaryIO, start: int, stop: int) -> bool:
    """Whether the bytes from `start` to `stop` are all zero."""
    file.seek(start)
    while start < stop:
        content = file.read(min(1 << 20, stop - start))
        if not content:
            break
        if content.strip(b"\0"):
            return False
        start += len(content)
    return True
