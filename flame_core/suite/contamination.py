"""Training pictures that look like pictures of a benchmark, by the same rule as between training and validation.

Hashes and miniatures of training shards and of benchmark pictures are units of the work cache, so a second recipe, and
a second benchmark, cost only what is new.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from safetensors.numpy import load_file, save_file

from flame_core.data.near_duplicates import Looks, near_duplicates
from flame_core.data.perceptual import COLOURS, colour_miniature, perceptual_hash
from flame_core.data.picture_bounds import PictureError
from flame_core.data.picture_decoding import read_picture
from flame_core.data.shards import Index, PictureReader, read_index
from flame_core.files.parquet_bytes import parquet_bytes
from flame_core.gates import Check
from flame_core.layout import Layout
from flame_core.params import IngestParams, LooksDisjointParams, Params
from flame_core.processes.engines import map_units
from flame_core.settings import settings
from flame_core.suite.collection import collect
from flame_core.suite.content import Picture, pictures_sha256
from flame_core.verification import read_digests
from flame_core.work import UnitRecord, WorkCache

CACHE = "looks"
TWINS = "training_twins.parquet"
_FILE = "looks.safetensors"
_CHUNK = 2048  # pictures of a unit
_NAMED = 20  # keys in a check
_SCHEMA = pa.schema({"benchmark": pa.string(), "picture": pa.string(), "key": pa.string()})


@dataclass(frozen=True)
class Twins:
    """For one benchmark: pairs (name of its picture, key of a training picture), one per training picture."""

    benchmark: str
    pictures: int
    pairs: list[tuple[str, str]]


def find_twins(params: Params, layout: Layout, chosen: LooksDisjointParams) -> list[Twins]:
    """The twins of every configured benchmark whose data are there.

    Raises:
        InputError: a picture cannot be read.
    """
    there = [each for each in collect(params, layout) if each.content]
    if not there:
        return []
    keys, training = _training(layout)
    found: list[Twins] = []
    for each in there:
        assert each.content is not None
        looks, readable = _of_pictures(each.content.pictures, layout.work)
        near = near_duplicates(training, looks[np.flatnonzero(readable)], chosen.distance)
        names = [picture.name for picture, fine in zip(each.content.pictures, readable, strict=True) if fine]
        twins = np.flatnonzero(near >= 0)
        pairs = [
            (names[place], key) for place, key in zip(near[twins], keys.take(pa.array(twins)).to_pylist(), strict=True)
        ]
        found.append(Twins(each.benchmark.name, len(names), sorted(pairs)))
    return found


def twins_file(found: Sequence[Twins]) -> bytes:
    """The content of `training_twins.parquet`."""
    rows = [
        {"benchmark": each.benchmark, "picture": picture, "key": key} for each in found for picture, key in each.pairs
    ]
    return parquet_bytes(pa.Table.from_pylist(rows, schema=_SCHEMA))


def twins_checks(found: Sequence[Twins], chosen: LooksDisjointParams) -> list[Check]:
    """A check per benchmark: no training picture looks like one of its pictures."""
    return [
        Check(
            f"benchmarks_disjoint/{each.benchmark}",
            not each.pairs,
            f"no training picture looks like one of the {each.pictures:,} pictures of {each.benchmark}",
            value=len(each.pairs),
            threshold=0,
            blocking=chosen.refuse,
            keys=[key for _, key in each.pairs][:_NAMED],
        )
        for each in found
    ]


@dataclass(frozen=True)
class _Shard:
    """The training pictures of a shard."""

    shards: Path
    rows: Index
    sha256: str
    cache: WorkCache


def _training(layout: Layout) -> tuple[pa.ChunkedArray, Looks]:
    """Keys and looks of all training pictures."""
    digests, cache = read_digests(layout.shards), WorkCache(layout.work, CACHE)
    index = read_index(layout.shards, "train").in_order()
    tasks = [_Shard(layout.shards, own, digests[shard], cache) for shard, own in index.by_shard().items()]
    folders = map_units(_of_shard, tasks, settings().workers, "look at training pictures", "shard")
    return index.table.column("key"), _joined(list(folders))[0]


def _of_shard(task: _Shard) -> Path:
    def write(folder: Path) -> UnitRecord:
        reader = PictureReader(task.shards)
        pictures = [Image.open(io.BytesIO(reader.jpeg(row)), formats=["JPEG"]).convert("RGB") for row in task.rows]
        return _write(folder, pictures)

    return task.cache.get({"shard": task.sha256}, write).folder


@dataclass(frozen=True)
class _Pictures:
    """Some pictures of a benchmark."""

    pictures: tuple[Picture, ...]
    sha256: tuple[str, ...]
    cache: WorkCache


def _of_pictures(pictures: Sequence[Picture], work: Path) -> tuple[Looks, np.ndarray]:
    digests, cache = pictures_sha256(pictures), WorkCache(work, CACHE)
    parts = [slice(start, start + _CHUNK) for start in range(0, len(pictures), _CHUNK)]
    tasks = [_Pictures(tuple(pictures[part]), tuple(digests[part]), cache) for part in parts]
    return _joined(list(map_units(_of_benchmark, tasks, settings().workers, "look at benchmark pictures", "chunk")))


def _of_benchmark(task: _Pictures) -> Path:
    def write(folder: Path) -> UnitRecord:
        rules = IngestParams()
        pictures: list[Image.Image | None] = []
        for picture in task.pictures:
            try:
                pictures.append(read_picture(picture.read(), rules).rgb)
            except PictureError:  # the benchmark itself names it when it is measured
                pictures.append(None)
        return _write(folder, pictures)

    return task.cache.get({"pictures": list(task.sha256)}, write).folder


def _write(folder: Path, pictures: Sequence[Image.Image | None]) -> UnitRecord:
    """Store the looks, and which pictures could be decoded."""
    hashes = np.array([perceptual_hash(each) if each else 0 for each in pictures], np.uint64)
    blank = np.zeros(COLOURS, np.uint8)
    colours = [colour_miniature(each) if each else blank for each in pictures]
    readable = np.array([each is not None for each in pictures])
    arrays = {"hashes": hashes, "colours": np.stack([*colours, blank])[:-1], "readable": readable}
    save_file(arrays, folder / _FILE)
    return UnitRecord({"pictures": len(pictures)})


def _joined(folders: Sequence[Path]) -> tuple[Looks, np.ndarray]:
    """Looks of all pictures of some units, and whether each could be decoded."""
    parts = [load_file(folder / _FILE) for folder in folders]
    if not parts:
        return Looks(np.empty(0, np.uint64), np.empty((0, COLOURS), np.uint8)), np.empty(0, bool)
    hashes, colours, readable = (
        np.concatenate([part[name] for part in parts]) for name in ("hashes", "colours", "readable")
    )
    return Looks(hashes, colours), readable
