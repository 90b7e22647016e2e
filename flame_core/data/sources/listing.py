"""The list of a source's pairs, as `data/raw/<source>/` keeps it: everything about them but the pictures' bytes.

`pairs.parquet` has one row a pair in the source's own fixed order, `source.json` says what the source is, how many
pairs it lists and which of its files could not be read, and `manifest.jsonl` (of sources that are read in place)
holds path, size and sha256 of every file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.sources import ImageRef, Problem, RawPair
from flame_core.digest import canonical_json, write_json
from flame_core.errors import InputError

PAIRS = "pairs.parquet"
SOURCE = "source.json"
MANIFEST = "manifest.jsonl"
_GROUP = 1024  # rows of a parquet row group: what is read at least

SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "file": pa.string(),  # relative to the source's folder of pictures; null: the picture is missing
        "offset": pa.int64(),
        "size": pa.int64(),
        "sha256": pa.string(),  # of the picture
        "captions": pa.map_(pa.string(), pa.list_(pa.string())),
        "title": pa.string(),
        "keywords": pa.list_(pa.string()),
        "category": pa.string(),
        "licence": pa.string(),
        "group": pa.string(),
        "split": pa.string(),
    }
)


@dataclass(frozen=True)
class SourceFile:
    """A line of the manifest."""

    path: str
    size: int
    sha256: str


def write_listing(
    folder: Path,
    pictures: Path,
    pairs: Iterable[RawPair],
    *,
    about: Mapping[str, Any],
    problems: list[Problem],
    manifest: Iterable[SourceFile] | None = None,
) -> dict[str, Any]:
    """Write the list of a source to `folder`; `pictures` is what file names are relative to.

    `problems` may still grow while `pairs` is being consumed. Returns the content of `source.json`.
    """
    count = 0
    rows = iter(pairs)
    with pq.ParquetWriter(folder / PAIRS, SCHEMA, compression="zstd") as writer:
        while chunk := [_row(pair, pictures) for pair in islice(rows, _GROUP)]:
            writer.write_table(pa.Table.from_pylist(chunk, schema=SCHEMA))
            count += len(chunk)
    if manifest is not None:
        with (folder / MANIFEST).open("w", encoding="utf-8") as file:
            file.writelines(canonical_json(asdict(entry)) + "\n" for entry in manifest)
    record = {**about, "pairs": count, "problems": [asdict(problem) for problem in problems]}
    write_json(folder / SOURCE, record)
    return record


def _row(pair: RawPair, pictures: Path) -> dict[str, Any]:
    image = pair.image
    row = {
        "key": pair.key,
        "captions": {plain(language): [plain(text) for text in texts] for language, texts in pair.captions.items()},
        "title": pair.title and plain(pair.title),
        "keywords": [plain(keyword) for keyword in pair.keywords],
        "category": pair.category and plain(pair.category),
        "licence": pair.licence and plain(pair.licence),
        "group": pair.group and plain(pair.group),
        "split": pair.split,
    }
    if image is not None:
        name = image.path.relative_to(pictures).as_posix()
        row |= {"file": name, "offset": image.offset, "size": image.size, "sha256": image.sha256}
    return row


def plain(text: str) -> str:
    """`text` without lone surrogates, which JSON may carry and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def read_source(raw: Path) -> dict[str, Any]:
    """The content of `source.json`.

    Raises:
        InputError: the source was not downloaded.
    """
    path = raw / SOURCE
    if not path.is_file():
        raise InputError(f"{path} is missing: run `flame download` first")
    return json.loads(path.read_text("utf-8"))


def read_keys(raw: Path) -> list[str]:
    """The keys of all pairs, in listing order."""
    return pq.ParquetFile(raw / PAIRS).read(["key"]).column("key").to_pylist()


def read_pairs(raw: Path, pictures: Path, start: int = 0, stop: int | None = None) -> list[RawPair]:
    """The pairs of the rows `start` to `stop` (not included) of the list."""
    with pq.ParquetFile(raw / PAIRS) as file:
        stop = file.metadata.num_rows if stop is None else stop
        first = start // _GROUP
        groups = range(first, -(-stop // _GROUP))
        table = file.read_row_groups(list(groups)) if groups else SCHEMA.empty_table()
    return [_pair(row, pictures) for row in table.slice(start - first * _GROUP, stop - start).to_pylist()]


def _pair(row: dict[str, Any], pictures: Path) -> RawPair:
    file, offset, size, sha256 = (row.pop(name) for name in ("file", "offset", "size", "sha256"))
    row["captions"] = dict(row["captions"])
    return RawPair(image=None if file is None else ImageRef(pictures / file, offset, size, sha256), **row)


def read_manifest(raw: Path) -> Iterator[SourceFile]:
    """The manifest's lines; none where the source keeps its pictures in `raw` itself."""
    path = raw / MANIFEST
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield SourceFile(**json.loads(line))


def check_manifest(raw: Path, pictures: Path) -> None:
    """Refuse a source whose files are gone or have another size than when they were listed.

    Raises:
        InputError: names the file. Bytes that changed within the same size are found when they are read.
    """
    for entry in read_manifest(raw):
        path = pictures / entry.path
        try:
            size = path.stat().st_size
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; run `flame download` again to list what is there") from None
        if size != entry.size:
            raise InputError(
                f"{path} has {size} bytes, and had {entry.size} when it was listed; run `flame download` again"
            )
