"""Finds the samples that are asked for, in every revision of the data, and what they can be recognised by.

A sample that is found by its key is found by its picture too: pairs with the same bytes (merged samples, the same
picture at another address) are forgotten together.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flame_core.data.addresses.attempts import ATTEMPTS
from flame_core.data.addresses.opt_out import normal_address
from flame_core.data.captions_text import clean_caption
from flame_core.data.forgotten import Forgotten, ForgottenSample
from flame_core.data.ledger import LEDGER, NEAR_DUPLICATE, absorbing_key
from flame_core.data.scan import TABLE
from flame_core.data.shards import INDEX, INDEX_SCHEMA, Index
from flame_core.data.sources.keys import safe_key
from flame_core.data.sources.listing import KEPT_COLUMNS, PAIRS, SOURCE
from flame_core.digest import file_sha256
from flame_core.errors import InputError
from flame_core.files.columns import is_among
from flame_core.files.whole_folders import SCRATCH
from flame_core.forgetting.requests import Requests
from flame_core.forgetting.revisions import Revision
from flame_core.forgetting.traces import Traces
from flame_core.tracking.listings import file_md5

_INDEX, _LEDGER = f"data/shards/{INDEX}", f"data/shards/{LEDGER}"


@dataclass
class Sample:
    """What is known about a sample that is to be forgotten."""

    sha256: set[str] = field(default_factory=set)
    urls: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    splits: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)  # files of the sources themselves, which are the user's


@dataclass
class Found:
    """The samples by key, what they are recognised by, and requests that named nothing."""

    samples: dict[str, Sample]
    traces: Traces
    unmatched: Requests

    def rows(self, requests: Requests, known: Forgotten, date: str, reason: str) -> Iterator[ForgottenSample]:
        """The rows for `opt_out.parquet`."""
        for key, sample in sorted(self.samples.items()):
            addresses = tuple(sorted(set(map(known.salted, sample.urls))))
            held = tuple(sorted(sample.held))
            yield ForgottenSample(key, tuple(sorted(sample.sha256)), None, addresses, date, reason, held)
        left = self.unmatched
        for key in sorted(left.keys - {row.key for row in known.rows}):
            yield ForgottenSample(key, date=date, reason=reason)
        for sha256 in sorted(left.sha256 - known.sha256):
            yield ForgottenSample(sha256=(sha256,), date=date, reason=reason)
        for url in sorted(url for url in left.urls if not known.names_address(url)):
            yield ForgottenSample(addresses=(known.salted(url),), date=date, reason=reason)
        for number in sorted(requests.hashes):  # also of pictures that come later
            yield ForgottenSample(phash=f"{number:016x}", date=date, reason=reason)


def find(revisions: Sequence[Revision], scans: Path, requests: Requests) -> Found:
    """Look for what is asked for in all revisions, and in the scans (`.flame/work/ingest`) for pHashes.

    Raises:
        InputError: a table cannot be read.
    """
    seen = list(_scanned(scans, requests.hashes))
    samples = find_samples(revisions, requests, [(key, sha256) for key, sha256, _ in seen])
    found = {digest for sample in samples.values() for digest in sample.sha256}
    urls = {normal_address(url) for sample in samples.values() for url in sample.urls}
    hashes = requests.hashes - {number for _, _, number in seen}
    missed = frozenset(url for url in requests.urls if normal_address(url) not in urls)
    unmatched = Requests(requests.keys - samples.keys(), requests.sha256 - found, hashes, missed)
    return Found(samples, _traces(revisions, samples), unmatched)


def find_samples(
    revisions: Sequence[Revision], requests: Requests, scanned: Iterable[tuple[str, str]] = ()
) -> dict[str, Sample]:
    """The samples that are asked for, and which training splits held them.

    `scanned`: (key, sha256) of samples that were found by their pHash.

    Raises:
        InputError: a table cannot be read.
    """
    samples: defaultdict[str, Sample] = defaultdict(Sample)
    for key, sha256 in scanned:
        samples[key].sha256.add(sha256)
    urls = set[str]().union(*(_listed(revision, requests.urls) for revision in revisions))
    while True:  # by key, then by the pictures of these, until nothing is added
        keys = requests.keys | samples.keys()
        digests = requests.sha256.union(*(sample.sha256 for sample in samples.values()))
        before = (len(samples), len(digests))
        for revision in revisions:
            _look(revision, keys, digests, urls, samples)
        if before == (len(samples), len(digests.union(*(sample.sha256 for sample in samples.values())))):
            break
    for revision in revisions:
        _note_held(revision, samples)
    return dict(samples)


def training_digests(revisions: Iterable[Revision]) -> set[str]:
    """The digests of all training splits whose index is on this machine.

    Raises:
        InputError: an index cannot be read.
    """
    indexes = {revision.files[_INDEX] for revision in revisions if _INDEX in revision.files}
    return {_training_digest(_read(index, INDEX_SCHEMA.names)) for index in indexes}


def _training_digest(table: pa.Table) -> str:
    return Index(table.filter(pc.field("split") == "train")).digest()


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    try:
        return pq.ParquetFile(path).read(columns)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(
            f"{path} cannot be read ({error}); `dvc checkout` or the stage that wrote it restores it"
        ) from None


def _among(table: pa.Table, column: str, values: Iterable[str]) -> Any:
    """Whether each row's value is one of `values`."""
    return is_among(table.column(column), pa.array(sorted(values), pa.string()))


def _either(masks: Sequence[Any]) -> Any:
    mask = masks[0]
    for other in masks[1:]:
        mask = pc.call_function("or", [mask, other])
    return mask


def _scanned(scans: Path, hashes: Iterable[int]) -> Iterator[tuple[str, str, int]]:
    """(key, sha256, hash) of scanned pictures with one of these perceptual hashes."""
    wanted = pa.array(sorted(hashes), pa.uint64())
    paths = sorted([*scans.glob(f"*/{TABLE}"), *scans.glob(f"{SCRATCH}/*/{TABLE}")]) if len(wanted) else []
    for path in paths:
        if not pc.call_function("any", [is_among(_read(path, ["hash"]).column("hash"), wanted)]).as_py():
            continue
        table = _read(path, ["key", "sha256", "hash"])
        for row in table.filter(is_among(table.column("hash"), wanted)).to_pylist():
            yield row["key"], row["sha256"], row["hash"]


def _sources(revision: Revision, name: str) -> Iterator[tuple[str, Path]]:
    """(source, file) of a table that every source has."""
    for place, path in revision.files.items():
        parts = PurePosixPath(place).parts
        if parts[:2] == ("data", "raw") and len(parts) == 4 and parts[3] == name:
            yield parts[2], path


def _own_keys(source: str, keys: Iterable[str]) -> set[str]:
    """Keys of a source's samples as its own list has them."""
    return {key.removeprefix(f"{source}/") for key in keys if key.startswith(f"{source}/")}


def _listed(revision: Revision, urls: Iterable[str]) -> set[str]:
    """These addresses as the revision's lists write them: they are the same if the same is asked for."""
    wanted, found = set(map(normal_address, urls)), set[str]()
    for _, path in _sources(revision, ATTEMPTS) if wanted else ():
        column = _read(path, ["url"]).column("url")
        found |= {url for url in column.unique().to_pylist() if url and normal_address(url) in wanted}
    return found


def _look(
    revision: Revision,
    keys: Iterable[str],
    digests: Iterable[str],
    urls: Iterable[str],
    samples: defaultdict[str, Sample],
) -> None:
    for source, path in _sources(revision, ATTEMPTS):
        table = _read(path, ["key", "url", "sha256_received", "sha256_stored"])
        masks = [_among(table, name, digests) for name in ("sha256_received", "sha256_stored")]
        mask = _either([*masks, _among(table, "key", _own_keys(source, keys)), _among(table, "url", urls)])
        for row in table.filter(mask).to_pylist():
            sample = samples[safe_key(f"{source}/{row['key']}")]
            sample.urls.add(row["url"])
            sample.sha256 |= {row[name] for name in ("sha256_received", "sha256_stored") if row[name]}
    for source, path in _sources(revision, PAIRS):
        table = _read(path, ["key", "sha256"])
        mask = _either([_among(table, "sha256", digests), _among(table, "key", _own_keys(source, keys))])
        for row in table.filter(mask).to_pylist():
            samples[safe_key(f"{source}/{row['key']}")].sha256 |= {row["sha256"]} - {None}
    if index := revision.files.get(_INDEX):
        table = _read(index, ["key", "sha256"])
        for row in table.filter(_either([_among(table, "sha256", digests), _among(table, "key", keys)])).to_pylist():
            samples[row["key"]].sha256.add(row["sha256"])


def _traces(revisions: Sequence[Revision], samples: dict[str, Sample]) -> Traces:
    """What the samples are recognised by; also notes in them which files of the sources hold them."""
    traces = Traces(keys=set(samples))
    traces.digests |= {digest for sample in samples.values() for digest in sample.sha256}
    traces.keys |= {key for key in (key.partition("/")[2] for key in samples) if key.startswith("urls/")}
    for revision in revisions:
        _of_pairs(revision, samples, traces)
        _of_shards(revision, samples, traces)
        for path in _captions(revision):
            table = _read(path, ["key", "text"])
            traces.texts |= set(table.filter(_among(table, "key", traces.keys)).column("text").to_pylist())
    others = set[str]().union(*(_shared(revision, traces) for revision in revisions)) if traces.texts else set()
    traces.texts -= others
    note_in_line(revisions, traces)
    return traces


def note_in_line(revisions: Iterable[Revision], traces: Traces) -> None:
    """Add the files that stand in line with what names a sample: vectors, and columns that a source keeps.

    Raises:
        InputError: a table cannot be read.
    """
    for revision in revisions:
        _vectors_in_line(revision, traces)
        _columns_in_line(revision, traces)


def _of_pairs(revision: Revision, samples: dict[str, Sample], traces: Traces) -> None:
    kinds = {source: json.loads(path.read_text("utf-8")).get("kind") for source, path in _sources(revision, SOURCE)}
    for source, path in _sources(revision, PAIRS):
        table = pq.ParquetFile(path).read()
        own_files = kinds.get(source) in ("folder", "webdataset")
        for row in table.filter(_of_source(table, source, samples, traces)).to_pylist():
            traces.texts |= {form for _, texts in row["captions"] for text in texts for form in _forms(text)}
            picture = revision.files.get(f"data/raw/{source}/{row['file']}")
            if picture is not None:
                with picture.open("rb") as file:
                    file.seek(row["offset"] or 0)
                    traces.add_picture(file.read(row["size"] or -1))
            if own_files or (picture is None and row["file"]):
                place = row["file"] if picture is None and row["file"] else row["key"]
                told = f"{source}: {place}, and where its captions stand" if own_files else f"{source}: {place}"
                samples[safe_key(f"{source}/{row['key']}")].sources.add(told)


def _of_source(table: pa.Table, source: str, samples: Iterable[str], traces: Traces) -> Any:
    """Which rows of a source's list are forgotten."""
    return _either([_among(table, "sha256", traces.digests), _among(table, "key", _own_keys(source, samples))])


def _captions(revision: Revision) -> Iterator[Path]:
    for place, path in revision.files.items():
        if place.startswith("data/captions/") and place.endswith(".parquet"):
            yield path


def _shared(revision: Revision, traces: Traces) -> set[str]:
    """Captions of the forgotten samples that other samples have too."""
    found: set[str] = set()
    for source, path in _sources(revision, PAIRS):
        table = pq.ParquetFile(path).read(["key", "sha256", "captions"])
        rest = table.filter(pc.call_function("invert", [_of_source(table, source, traces.keys, traces)]))
        for captions in rest.column("captions").to_pylist():
            found |= {form for _, texts in captions for text in texts for form in _forms(text) if form in traces.texts}
    theirs = {*traces.keys, *_absorbing(revision, traces.keys).values()}
    for path in _captions(revision):
        table = _read(path, ["key", "text"])
        rest = table.filter(pc.call_function("invert", [_among(table, "key", theirs)]))
        found |= set(rest.filter(_among(rest, "text", traces.texts)).column("text").to_pylist())
    return found


def _forms(text: str) -> set[str]:
    """A caption as the source says it, and as shards have it."""
    return {text, clean_caption(text, len(text))[0]} - {""}


def _absorbing(revision: Revision, keys: Iterable[str]) -> dict[str, str]:
    """{key of a near-duplicate: key of the sample that has its captions}."""
    ledger = revision.files.get(_LEDGER)
    if ledger is None:
        return {}
    table = _read(ledger, ["key", "outcome", "reason", "detail"])
    table = table.filter((pc.field("outcome") == "merged") & (pc.field("reason") == NEAR_DUPLICATE))
    return {row["key"]: absorbing_key(row["detail"]) for row in table.filter(_among(table, "key", keys)).to_pylist()}


def _note_held(revision: Revision, samples: dict[str, Sample]) -> None:
    """Note in the samples which splits have them, themselves or as captions of a near-duplicate."""
    index = revision.files.get(_INDEX)
    if index is None:
        return
    table = _read(index, INDEX_SCHEMA.names)
    rows = [(row["key"], row["split"]) for row in table.filter(_among(table, "key", samples)).to_pylist()]
    rows += [(key, "train") for key in _absorbing(revision, samples)]
    digest = _training_digest(table) if rows else ""
    for key, split in rows:
        samples[key].splits.add(split)
        if split == "train":
            samples[key].held.add(digest)


def _of_shards(revision: Revision, samples: dict[str, Sample], traces: Traces) -> None:
    index = revision.files.get(_INDEX)
    if index is None:
        return
    table = _read(index, ["key", "shard", "offset", "size"])
    for row in table.filter(_among(table, "key", samples)).to_pylist():
        shard = revision.files.get(f"data/shards/{row['shard']}")
        if shard:
            with shard.open("rb") as file:
                file.seek(row["offset"])
                stored = file.read(row["size"])
            traces.add_picture(stored)
            traces.add_views(stored)


def _columns_in_line(revision: Revision, traces: Traces) -> None:
    """Columns of a source that name a sample, by the source's own keys, or beside a list of pairs that does."""
    for source, path in _sources(revision, KEPT_COLUMNS):
        masks = [_among(_read(path, ["key"]), "key", _own_keys(source, traces.keys))]
        if pairs := revision.files.get(f"data/raw/{source}/{PAIRS}"):
            masks.append(_of_source(_read(pairs, ["key", "sha256"]), source, traces.keys, traces))
        if any(pc.call_function("any", [mask]).as_py() for mask in masks):
            _note(revision, f"data/raw/{source}/{KEPT_COLUMNS}", traces)


def _note(revision: Revision, place: str, traces: Traces) -> None:
    path = revision.files[place]
    traces.files.add(file_sha256(path))
    traces.md5s.add(revision.md5s.get(place) or file_md5(path))


def _vectors_in_line(revision: Revision, traces: Traces) -> None:
    """Vectors that stand in line with a shard or a table that names a sample, by their digests."""
    index = revision.files.get(_INDEX)
    stems: set[tuple[str, str]] = set()
    if index is not None:
        table = _read(index, ["key", "shard"])
        shards = set(table.filter(_among(table, "key", traces.keys)).column("shard").to_pylist())
        stems = {("train", PurePosixPath(shard).stem) for shard in shards if shard.startswith("train/")}
    tables = {"data/embeddings/texts/": "texts", "data/captions/train/": "train"}
    for place, path in revision.files.items():
        own = next((kind for folder, kind in tables.items() if place.startswith(folder)), None)
        if own and place.endswith(".parquet") and traces.in_file(path):
            stems.add((own, PurePosixPath(place).stem))
    for place in revision.files:
        name = PurePosixPath(place)
        vectors = place.startswith("data/embeddings/") and name.suffix == ".safetensors"
        if vectors and (name.parts[2], name.stem) in stems:
            _note(revision, place, traces)
