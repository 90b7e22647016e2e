"""Existing webdataset shards, read in place, such as those of img2dataset or CC3M-wds.

A sample is all members of a tar with one key: a picture (`jpg`, `png`, ..., see `picture_kinds.py`), a caption (`txt`)
and a JSON object (`json`, see `record.py`); `tar_samples.py` groups the members. Pictures are listed as byte ranges of
the tar, so a compressed tar cannot be used. A truncated or damaged tar gives all samples that can be read, and becomes
a problem; members and files that belong to no sample are counted by kind.
"""

from __future__ import annotations

import fnmatch
import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from flame_core.data.forgotten import NOTHING, Forgotten
from flame_core.data.shards import SPLITS, Split
from flame_core.data.sources import ImageRef, Problem, RawPair
from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.beside_shards import note_rest
from flame_core.data.sources.keys import safe_key
from flame_core.data.sources.listing import SourceFile, listed_unit, write_listing
from flame_core.data.sources.manifest import LARGEST_PICTURE, LARGEST_TEXT, make_manifest
from flame_core.data.sources.record import RECORDS, RecordReader, read_object
from flame_core.data.sources.tar_headers import Member, read_members
from flame_core.data.sources.tar_samples import TEXTS, Parts, group_members
from flame_core.data.text_files import TextError, decode_text
from flame_core.errors import InputError
from flame_core.files.regular_files import kind_of, open_regular
from flame_core.layout import lies_in_project
from flame_core.names import printable
from flame_core.params import WebdatasetSource
from flame_core.work import Unit, UnitRecord, WorkCache

_COMPRESSED = {
    b"\x1f\x8b": "gzip (gunzip)",
    b"BZh": "bzip2 (bunzip2)",
    b"\xfd7zXZ\0": "xz (unxz)",
    b"\x28\xb5\x2f\xfd": "zstd (unzstd)",
    b"\x04\x22\x4d\x18": "lz4 (unlz4)",
    b"PK\x03\x04": "zip (unzip, then tar)",
}
_LOGGED = 5  # problems of a tar that are logged one by one
log = logging.getLogger(__name__)


@dataclass
class TarSample:
    """The contents of a sample; a tar with two pictures under one key gives one sample per picture."""

    key: str
    image: ImageRef | None = None
    texts: list[str] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    unread: str | None = None  # a member in the picture's place that cannot be read


class Webdataset:
    """The source `kind: webdataset`."""

    def __init__(self, params: WebdatasetSource, folder: Path, forgotten: Forgotten = NOTHING) -> None:
        self._forgotten = forgotten
        self._params = params
        self._folder = folder
        self._reader = RecordReader((params.caption_field,), params.language, params.group_field, params.licence)

    def pictures(self, raw: Path) -> Path:
        return self._folder

    def download(self, work: WorkCache) -> Unit:
        if not self._folder.is_dir():
            raise InputError(f"{self._folder} is not a folder; `path` of the source must name one")
        problems, unused = Problems(), Unused()
        found = self._folder.glob(self._params.shards)
        matched = sorted(path for path in found if not lies_in_project(path, self._folder))
        tars = self._tars(matched, problems)
        require_shards(self._params, str(self._folder), [path.name for path in tars], problems)
        note_rest(self._folder, matched, problems, unused)
        manifest = make_manifest(self._folder, tars, problems)
        return self.listed(manifest, problems, unused, work)

    def listed(self, manifest: list[SourceFile], problems: Problems, unused: Unused, work: WorkCache) -> Unit:
        """The unit with the list of the pairs in these shards, which are in the source's folder."""
        inputs = {
            "params": self._params.model_dump(exclude={"path"}),
            "records": RECORDS,
            "files": [[entry.path, entry.size, entry.sha256] for entry in manifest],
            "problems": [[problem.file, problem.reason] for problem in problems.rows()],
            "unused": [asdict(group) for group in unused.rows()],
            **self._forgotten.identity,
        }
        return work.get({"kind": "webdataset", **inputs}, lambda folder: self._list(folder, manifest, problems, unused))

    def _tars(self, matched: Sequence[Path], problems: list[Problem]) -> list[Path]:
        """The regular files that `shards` matches; anything else that it matches is a problem."""
        tars: list[Path] = []
        for path in matched:
            name = printable(path.relative_to(self._folder).as_posix())
            try:
                kind = kind_of(path.stat().st_mode)
            except OSError as error:
                problems.append(Problem(name, "unreadable_file", error.strerror or str(error)))
                continue
            if kind is None:
                tars.append(path)
            else:
                problems.append(Problem(name, "not_a_file", f"is {kind}, not a file"))
        return tars

    def _list(self, folder: Path, manifest: list[SourceFile], problems: Problems, unused: Unused) -> UnitRecord:
        about = {"kind": "webdataset"}
        pairs = self._pairs(manifest, problems, unused)
        record = write_listing(
            folder,
            self._folder,
            pairs,
            about=about,
            problems=problems,
            unused=unused,
            manifest=manifest,
            forgotten=self._forgotten,
        )
        return listed_unit(record)

    def _pairs(self, manifest: Sequence[SourceFile], problems: list[Problem], unused: Unused) -> Iterator[RawPair]:
        limit = self._params.max_samples
        taken: dict[Split | None, int] = {}
        for entry in manifest:
            split = self._split(entry.path)
            shard = entry.path.rpartition(".")[0]
            if limit is not None and taken.get(split, 0) >= limit:
                unused.add("beyond_max_samples", entry.path, "shards")
                continue
            for sample in read_samples(self._folder, entry.path, problems, unused, self._params.encoding):
                if limit is not None and taken.get(split, 0) >= limit:
                    unused.add("beyond_max_samples", f"{entry.path}/{sample.key}", "samples")
                    continue
                taken[split] = taken.get(split, 0) + 1
                key = safe_key(f"{shard}/{sample.key}")
                pair = self._reader.pair(key, sample.image, sample.records, texts=sample.texts, unused=unused)
                left_out = pair.split not in (None, *SPLITS) and split != "val"
                split_of = pair.split if split is None or left_out else split
                yield replace(pair, split=split_of, unread=sample.unread)

    def _split(self, shard: str) -> Split | None:
        if self._params.val_shards is None:
            return None
        return "val" if fnmatch.fnmatch(Path(shard).name, self._params.val_shards) else "train"


def require_shards(params: WebdatasetSource, place: str, names: Sequence[str], problems: Sequence[Problem]) -> None:
    """Refuse a place without shards, or without those of the validation split.

    Raises:
        InputError: names the place and the pattern.
    """
    if not names:
        named = "".join(f"; {problem.file}: {problem.detail}" for problem in problems[:3])
        raise InputError(f"{place} holds no file {params.shards!r}; `shards` must match some{named}")
    val = params.val_shards
    if val and not any(fnmatch.fnmatch(name, val) for name in names):
        raise InputError(f"{place}: none of the shards matches val_shards {val!r}")


def read_samples(
    folder: Path, shard: str, problems: list[Problem], unused: Unused, encoding: str = "utf-8"
) -> Iterator[TarSample]:
    """The samples of a tar, in order. Damaged parts are left out and become problems that name tar and member."""
    found = len(problems)

    def damaged(detail: str) -> None:
        problems.append(Problem(shard, "damaged_file", detail))

    try:
        with open_regular(folder / shard) as file:
            start = file.read(8)
            packed = next((said for magic, said in _COMPRESSED.items() if start.startswith(magic)), None)
            if packed:
                told = f"compressed with {packed}: unpack it, since pictures are read by their place in the tar"
                problems.append(Problem(shard, "compressed_file", told))
            else:
                for parts in group_members(shard, read_members(file, damaged), problems, unused):
                    yield from _read(file, folder / shard, shard, parts, problems, encoding)
    except OSError as error:
        problems.append(Problem(shard, "unreadable_file", error.strerror or str(error)))
    for problem in problems[found : found + _LOGGED]:
        log.warning("%s: %s", folder / problem.file, problem.detail)
    if len(problems) > found + _LOGGED:
        log.warning("%s: and more, listed in source.json", folder / shard)


def _read(
    file: BinaryIO, path: Path, shard: str, parts: Parts, problems: list[Problem], encoding: str
) -> Iterator[TarSample]:
    """The samples of these parts, one per picture, each with all captions; ingest keeps the first good one."""
    texts: list[str] = []
    records: list[dict[str, Any]] = []
    images: list[ImageRef] = []
    unread = parts.unread
    for kind, member in parts.members.items():
        name = printable(f"{shard}/{member.name}")
        largest = LARGEST_TEXT if kind in TEXTS else LARGEST_PICTURE
        if member.size > largest:
            told = f"has {member.size:,} bytes, more than the {largest:,} that are read"
            problems.append(Problem(name, "damaged_member", told))
            unread = name if kind not in TEXTS else unread
            continue
        content = _content(file, member)
        if kind not in TEXTS:
            images.append(ImageRef(path, member.offset, member.size, hashlib.sha256(content).hexdigest()))
            continue
        try:
            if kind == "txt":
                texts.append(decode_text(content, encoding))
            else:
                records.append(read_object(content, encoding))
        except TextError as error:
            problems.append(Problem(name, "damaged_text" if kind == "txt" else "damaged_member", str(error)))
    for image in images:
        yield TarSample(parts.key, image, texts, records)
    if not images:
        yield TarSample(parts.key, None, texts, records, unread)


def _content(file: BinaryIO, member: Member) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)
