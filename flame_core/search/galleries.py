"""What is searched: the held-out split, all pictures of the project, or a folder with an index.

The vectors of a split are computed once per model and kept in the work cache.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flame_core import gates
from flame_core.captions.table import captions_at
from flame_core.data.shards import INDEX, SPLITS, IndexRow, PictureReader, Split, read_index
from flame_core.digest import file_sha256
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.measuring.kept_vectors import kept_vectors
from flame_core.model.given_pictures import read_file
from flame_core.model.loaded import Model
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.names import expanded
from flame_core.search.folder_index import index_file, read_index_file
from flame_core.verification import verify
from flame_core.work import WorkCache

HELD_OUT, ALL = "held-out", "all"
_SAID: dict[Split, str] = {"train": "training", "val": "held-out"}  # as people call the splits
_VECTORS = "gallery.npy"


@dataclass(frozen=True)
class Gallery:
    """Pictures to search.

    Attributes:
        title: what they are, for people.
        views: [N, 1 + F, D] vectors.
        keys: N names, unique in the gallery.
        paths: of the N files that hold them: a picture's own, or its shard's.
        picture: reads the bytes of picture n.
        captions: finds captions of pictures by their numbers; a picture may have none.
    """

    title: str
    views: np.ndarray
    keys: Sequence[str]
    paths: Sequence[str]
    picture: Callable[[int], bytes]
    captions: Callable[[Sequence[int]], dict[int, str]]


def gallery_of(layout: Layout, model: Model, index: str) -> Gallery:
    """The gallery that `flame query --index` names: `held-out`, `all`, a folder, or the file of an index.

    Raises:
        InputError: there is no such index, or it was made with another model.
        GateError: the shards failed a quality gate.
    """
    if index in (HELD_OUT, ALL):
        return of_splits(layout, model, ("val",) if index == HELD_OUT else SPLITS)
    path = expanded(index)
    if not path.exists():
        raise InputError(f"--index {index}: write {HELD_OUT}, {ALL}, a folder of pictures, or the file of an index")
    command = f"flame embed-images {shlex.quote(str(path)) if path.is_dir() else 'FOLDER'} --model {model.name}"
    file = index_file(layout, model, path) if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"the pictures in {path} have no vectors of {model.name} yet: run `{command}` first")
    found = read_index_file(file)
    if found.of_pictures != model.of_pictures:
        raise InputError(f"{path} was made with {found.model}, whose weights are not those of {model.name} now; "
                         f"run `{command} --out {path}` with that model")  # fmt: skip
    places = [found.folder / name for name in found.paths]
    return Gallery(
        f"{len(places):,} pictures of {found.folder}",
        found.views,
        found.paths,
        [str(place) for place in places],
        lambda number: read_file(places[number]),
        lambda numbers: {},
    )


def gallery_version(layout: Layout, model: Model, index: str) -> str:
    """Changes if the gallery of an index is made anew; empty if there is none."""
    path = expanded(index)
    file = layout.shards / INDEX if index in (HELD_OUT, ALL) else path
    if index not in (HELD_OUT, ALL) and path.is_dir():
        file = index_file(layout, model, path)
    try:
        found = file.stat()
    except OSError:
        return ""
    return f"{found.st_ino} {found.st_mtime_ns} {found.st_size}"


def of_splits(layout: Layout, model: Model, splits: Sequence[Split]) -> Gallery:
    """The pictures of splits, in the order of the index.

    Raises:
        InputError: the shards are missing or damaged.
        GateError: they failed a quality gate.
    """
    gates.require(layout.shards)
    rows = [row for split in splits for row in read_index(layout.shards, split)]
    if not rows:
        raise InputError(f"{layout.shards / INDEX} has no picture in {', '.join(splits)}")
    reader = PictureReader(layout.shards)
    return Gallery(
        f"{len(rows):,} {' and '.join(_SAID[split] for split in splits)} pictures",
        np.concatenate([_vectors(layout, model, split) for split in splits]),
        [row.key for row in rows],
        [str((layout.shards / row.shard).relative_to(layout.root)) for row in rows],
        lambda number: reader.jpeg(rows[number]),
        lambda numbers: _captions(layout.captions, {number: rows[number] for number in numbers}),
    )


def _vectors(layout: Layout, model: Model, split: Split) -> np.ndarray:
    """[N, 1 + F, D] of a split."""
    whole = {
        "config": model.tower_digests[CONFIG],
        "weights": model.tower_digests[WEIGHTS],
        "index": file_sha256(layout.shards / INDEX),
        "split": split,
    }
    rows = read_index(layout.shards, split)

    def inputs(part: slice) -> dict[str, Any]:
        return whole if part == slice(0, len(rows)) else {**whole, "rows": [part.start, part.stop]}

    def blocks(part: slice) -> Iterator[np.ndarray]:
        from flame_core.measuring.image_vectors import encoded_blocks

        verify({layout.shards: [INDEX, f"{split}/*"]})
        return encoded_blocks(model.encoder, layout.shards, rows[part])

    cache = WorkCache(layout.work, "query")
    return kept_vectors(cache, _VECTORS, f"encode {split}", len(rows), inputs, blocks)


def _captions(captions: Path, rows: dict[int, IndexRow]) -> dict[int, str]:
    """The first raw caption of pictures."""
    found = captions_at({(row.shard, row.row) for row in rows.values()}, captions, "raw")
    return {number: found[place] for number, row in rows.items() if (place := (row.shard, row.row)) in found}
