"""The index of a folder: a row per picture below it, with its vector, or with the reason why it has none.

    flame embed-images ~/Pictures --out pictures.parquet

The file (parquet) is ordered by path. Its columns are `path` (relative to the folder), `sha256` of the bytes, `vector`
[D] of the whole picture, `facets` [F * D] if the model's tower has facets, and `reason` and `detail`, which are empty
for every picture that has a vector. Only pictures whose bytes are new are encoded (`stored_vectors`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.picture_decoding import PictureError
from flame_core.data.picture_kinds import is_picture
from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.listing import SourceFile
from flame_core.data.sources.manifest import make_manifest
from flame_core.data.sources.walk import Walk
from flame_core.digest import bytes_sha256, canonical_json, text_sha256, write_json
from flame_core.errors import InputError
from flame_core.files.disk_errors import clear_disk_errors
from flame_core.files.whole_folders import scratch
from flame_core.layout import Layout
from flame_core.model.given_pictures import of_file, read_file
from flame_core.model.loaded import Model
from flame_core.names import is_text, shown
from flame_core.reporting import progress
from flame_core.search.stored_vectors import StoredVectors, read_vectors, vector_array

_ABOUT = b"flame"  # key of the facts in the file's metadata
_CHUNK = 256  # pictures after which vectors are stored


@dataclass(frozen=True)
class Refused:
    """A picture without a vector."""

    path: str
    reason: str
    detail: str


@dataclass(frozen=True)
class FolderIndex:
    """The pictures of a folder.

    Attributes:
        folder: of the pictures.
        model: its name when the index was made.
        of_pictures: `Model.of_pictures` of that model.
        paths: N paths, relative to the folder.
        sha256: N digests of the pictures' bytes.
        views: [N, 1 + F, D] vectors.
        refused: pictures that have none.
    """

    folder: Path
    model: str
    of_pictures: str
    paths: Sequence[str]
    sha256: Sequence[str]
    views: np.ndarray
    refused: Sequence[Refused]


@dataclass(frozen=True)
class Embedded:
    """What `embed_folder` did: its index, the file of it, how many pictures were encoded now, and files left out."""

    index: FolderIndex
    file: Path
    encoded: int
    unused: Sequence[str]


def index_file(layout: Layout, model: Model, folder: Path) -> Path:
    """Where the index of a folder is kept, for one model."""
    key = text_sha256(f"{model.of_pictures} {folder.resolve()}")
    return layout.state / "search" / "folders" / f"{key[:32]}.parquet"


def embed_folder(layout: Layout, model: Model, folder: Path) -> Embedded:
    """Bring the index of a folder up to date.

    Raises:
        InputError: it is not a folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    folder = folder.resolve()
    if not is_text(str(folder)):
        raise InputError(f"{shown(str(folder))} is not UTF-8: rename the folder")
    problems, unused = Problems(), Unused()
    walk = Walk(folder, False, problems, unused)
    names = [name for name in walk.files if is_picture(name)]
    for name in walk.files:
        if not is_picture(name):
            unused.add("unsupported_suffix", name)
    files = make_manifest(folder, [folder / name for name in names], problems)
    views = 1 + model.facets
    stored = StoredVectors(layout.state / "search" / "vectors" / model.of_pictures[:32], views * model.dim)
    wanted = {entry.sha256: entry for entry in files if entry.sha256 not in stored}
    wrong = _encode(model, folder, list(wanted.values()), stored)
    good = [entry for entry in files if entry.sha256 in stored]
    refused = [Refused(each.file, each.reason, each.detail) for each in problems.rows()]
    refused += [Refused(entry.path, *wrong[entry.sha256]) for entry in files if entry.sha256 not in stored]
    vectors = [stored[entry.sha256] for entry in good]
    index = FolderIndex(
        folder,
        model.name,
        model.of_pictures,
        [entry.path for entry in good],
        [entry.sha256 for entry in good],
        np.array(vectors, np.float32).reshape(-1, views, model.dim),
        sorted(refused, key=lambda each: each.path.split("/")),
    )
    file = index_file(layout, model, folder)
    write_parquet(index, file)
    return Embedded(index, file, len(wanted) - len(wrong), [group.detail for group in unused.rows()])


def _encode(
    model: Model, folder: Path, files: Sequence[SourceFile], stored: StoredVectors
) -> dict[str, tuple[str, str]]:
    """Store the vectors of files; {sha256: (reason, detail)} of those that have none."""
    wrong: dict[str, tuple[str, str]] = {}
    with progress("encode", len(files), "pictures") as bar:
        for first in range(0, len(files), _CHUNK):
            part = files[first : first + _CHUNK]
            jpegs: dict[str, bytes] = {}
            for entry in part:
                try:
                    content = read_file(folder / entry.path)
                    if bytes_sha256(content) != entry.sha256:
                        raise InputError("changed while it was being read; run the same command again")
                    jpegs[entry.sha256] = of_file(content, model.ingest)
                except PictureError as error:
                    wrong[entry.sha256] = error.reason, error.detail
                except InputError as error:
                    wrong[entry.sha256] = "unreadable_file", str(error)
            if jpegs:
                stored.add(list(jpegs), model.encode_prepared(list(jpegs.values())).reshape(len(jpegs), -1))
            bar.advance(len(part))
    return wrong


def reasons(refused: Sequence[Refused]) -> dict[str, int]:
    """{reason: number of pictures}, the most frequent first."""
    return dict(Counter(each.reason for each in refused).most_common())


def write_parquet(index: FolderIndex, path: Path) -> None:
    """Write the index as parquet, whole or not at all."""
    paths = [*index.paths, *(each.path for each in index.refused)]
    none = [""] * len(index.paths)
    dim = index.views.shape[2]
    filled = np.zeros((len(paths), *index.views.shape[1:]), np.float32)
    filled[: len(index.paths)] = index.views
    absent = np.arange(len(paths)) >= len(index.paths)
    columns: dict[str, Any] = {
        "path": pa.array(paths, pa.string()),
        "sha256": pa.array([*index.sha256, *([None] * len(index.refused))], pa.string()),
        "reason": pa.array([*none, *(each.reason for each in index.refused)], pa.string()),
        "detail": pa.array([*none, *(each.detail for each in index.refused)], pa.string()),
        "vector": vector_array(filled[:, 0], absent),
    }
    if index.views.shape[1] > 1:
        columns["facets"] = vector_array(filled[:, 1:].reshape(len(paths), -1), absent)
    about: dict[str, Any] = {"folder": str(index.folder), "model": index.model, "pictures": index.of_pictures}
    about |= {"dimensions": dim, "facets": index.views.shape[1] - 1}
    order = sorted(range(len(paths)), key=lambda row: paths[row].split("/"))
    table = pa.table(columns).take(pa.array(order)) if paths else pa.table(columns)
    table = table.replace_schema_metadata({_ABOUT: canonical_json(about).encode()})
    with clear_disk_errors(path), scratch(path.parent) as place:
        pq.write_table(table, place / "index", write_page_checksum=True)
        (place / "index").replace(path)


def write_npy(index: FolderIndex, path: Path) -> None:
    """Write vectors [N, D] as `.npy`, and beside it `.json`: the N paths in the same order, and what has no vector."""
    refused = {each.path: f"{each.reason}: {each.detail}" for each in index.refused}
    about = {"folder": str(index.folder), "model": index.model, "paths": list(index.paths), "refused": refused}
    beside = path.with_suffix(".json")
    if beside.exists() and not _is_list_of_paths(beside, set(about)):
        raise InputError(f"--out {path}: the paths would replace {beside}, which is another file: name another one")
    with clear_disk_errors(path), scratch(path.parent) as place:
        np.save(place / "vectors.npy", index.views[:, 0])
        write_json(place / "paths", about)
        beside.unlink(missing_ok=True)  # a kill between the two leaves no paths of other vectors
        (place / "vectors.npy").replace(path)
        (place / "paths").replace(beside)


def _is_list_of_paths(path: Path, names: set[str]) -> bool:
    """Whether `write_npy` wrote a file."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and set(content) == names


def read_index_file(path: Path) -> FolderIndex:
    """The index in a file of `write_parquet`.

    Raises:
        InputError: the file is no such index.
    """
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        about = json.loads((table.schema.metadata or {})[_ABOUT])
        dim: int = about["dimensions"]
        rows = [(str(row["path"]), row["sha256"], row["reason"], row["detail"]) for row in _texts(table)]
        good = [row for row in rows if not row[2]]
        views = read_vectors(table.column("vector"), dim)[:, None]  # [N, 1, D]
        if "facets" in table.column_names:
            facets = read_vectors(table.column("facets"), about["facets"] * dim)
            views = np.concatenate([views, facets.reshape(len(good), -1, dim)], axis=1)
        if len(views) != len(good):
            raise ValueError("vectors are missing")
        folder, model, of_pictures = Path(about["folder"]), about["model"], about["pictures"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise InputError(
            f"{shown(str(path))} is not an index of pictures ({type(error).__name__}): `flame embed-images FOLDER "
            "--out FILE.parquet` writes one"
        ) from None
    refused = [Refused(name, reason, detail) for name, _, reason, detail in rows if reason]
    return FolderIndex(folder, model, of_pictures, [row[0] for row in good], [row[1] for row in good], views, refused)


def _texts(table: pa.Table) -> list[dict[str, Any]]:
    return table.select(["path", "sha256", "reason", "detail"]).to_pylist()
