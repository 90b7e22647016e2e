"""Scans a chunk of a source's pairs: decodes, scales down, hashes and measures every picture, cleans every caption.

This is the expensive part of ingest and treats each pair by itself. Decisions about several pairs (duplicates, the
split) are made later from the small tables that scans write (`selection.py`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import compress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.blurring import Box, blurred, boxes_of
from flame_core.data.captions_text import clean_captions, primary_language, same_text, text_id
from flame_core.data.forgotten import FORGOTTEN, NOTHING, Forgotten
from flame_core.data.pair_filters import FILTERED, filter_captions, pair_reason, picture_reason
from flame_core.data.perceptual import COLOURS, colour_miniature, perceptual_hash
from flame_core.data.picture_decoding import PictureError, read_picture
from flame_core.data.picture_kinds import is_picture, suffix_of
from flame_core.data.shards import SPLITS
from flame_core.data.sources import ImageRef, RawPair
from flame_core.data.sources.keys import safe_key
from flame_core.data.sources.listing import KEPT_COLUMNS, read_pairs
from flame_core.data.split import side_number
from flame_core.digest import canonical_json, value_digest
from flame_core.errors import InputError
from flame_core.files.row_groups import read_rows
from flame_core.names import is_language_code, shown
from flame_core.params import IngestParams, changed_values
from flame_core.version import installed_version
from flame_core.work import UnitRecord, WorkCache

TABLE = "scan.parquet"
PICTURES = "pictures.bin"
LANGUAGE_CODE = "language_code"  # the reason if `names.is_language_code` refuses a code
SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "reason": pa.string(),  # why the pair is dropped; null: it is good, and the columns below have values
        "detail": pa.string(),
        "digest": pa.string(),  # of everything that determines the sample in a shard
        "sha256": pa.string(),  # of the source's picture
        "width": pa.int32(),
        "height": pa.int32(),
        "file": pa.string(),  # the source's file with the JPEG; null: it is in `pictures.bin`
        "offset": pa.int64(),
        "size": pa.int64(),
        "hash": pa.uint64(),
        "colours": pa.binary(COLOURS),
        "split": pa.string(),  # fixed by the source
        "side": pa.uint64(),  # the number that decides the split if the source does not
        "primary_texts": pa.list_(pa.uint64()),  # ids of the captions in the primary language
        "other_texts": pa.list_(pa.uint64()),  # ids of the captions in all other languages
        "meta": pa.string(),  # JSON, as stored in the shard
        "left_out": pa.string(),  # for people: captions of a good pair that were left out; null: none
    }
)


@dataclass(frozen=True)
class ScanTask:
    """The rows `start` to `stop` of a source's list of pairs."""

    source: str
    raw: Path  # data/raw/<source>
    pictures: Path  # the listed files are relative to this folder
    start: int
    stop: int
    params: IngestParams
    work: WorkCache
    forgotten: Forgotten = NOTHING  # of the source


@dataclass(frozen=True)
class Scanned:
    """A finished scan: `folder` of its unit."""

    source: str
    pictures: Path
    folder: Path
    pairs: int
    cut_captions: int
    filtered: dict[str, int]  # captions left out, by reason
    computed: bool
    forgotten: int = 0  # pairs that are not among `pairs`


def scan(task: ScanTask) -> Scanned:
    """The scan of a chunk, found in the work cache or computed.

    Raises:
        InputError: a file of the source changed since it was listed.
    """
    listed = read_pairs(task.raw, task.pictures, task.start, task.stop)
    wanted = [not task.forgotten.names(pair.key, pair.image and pair.image.sha256) for pair in listed]
    pairs = list(compress(listed, wanted))
    params = task.params.model_dump(include={"max_pixels", "max_side", "jpeg_quality", "max_caption_chars"})
    columns: list[dict[str, Any]] = []
    inputs: dict[str, Any] = {
        "unit": "scan",
        "source": task.source,
        "params": params,
        "pairs": [_identity(pair, task.pictures) for pair in pairs],
    }
    rules = changed_values(task.params.filters)
    rules.pop("near_duplicates", None)  # it is about pairs together, and no scan depends on it
    if rules:
        inputs["filters"] = rules
        inputs["columns"] = []
        if task.params.filters.language:
            inputs["py3langid"] = installed_version("py3langid")
    if task.params.blur is not None:
        inputs["blur"] = task.params.blur.model_dump(mode="json")
    if task.params.filters.scores or task.params.blur is not None:
        inputs["columns"] = columns = list(compress(_kept_columns(task), wanted))
    write = partial(_write, task, pairs, columns)
    unit = task.work.get(inputs, write)
    if task.forgotten.hashes and _has_forgotten(unit.folder, task.forgotten):  # asked for after it was written
        task.work.remove(task.work.digest(inputs))
        unit = task.work.get(inputs, write)
    return Scanned(
        source=task.source,
        pictures=task.pictures,
        folder=unit.folder,
        pairs=len(pairs),
        cut_captions=unit.record.counts["cut_captions"],
        filtered={name: number for name, number in unit.record.counts.items() if name.startswith(FILTERED)},
        computed=unit.computed,
        forgotten=len(listed) - len(pairs),
    )


def _identity(pair: RawPair, pictures: Path) -> dict[str, Any]:
    image = pair.image
    file = image and [image.path.relative_to(pictures).as_posix(), image.offset, image.size, image.sha256]
    return vars(pair) | {"image": file}


def _no_picture(pair: RawPair) -> PictureError:
    if pair.unread is None:
        return PictureError("image_missing", pair.missing or "the source has the caption and not the picture")
    if is_picture(pair.unread):
        return PictureError("image_unreadable", f"{pair.unread} could not be read; an entry of its own says why")
    suffix = suffix_of(pair.unread)
    told = f"pictures of the kind {suffix} are not read" if suffix else "a picture needs a suffix that says its kind"
    return PictureError("image_unsupported", f"{pair.unread}: {told}")


def _kept_columns(task: ScanTask) -> list[dict[str, Any]]:
    """The kept columns of each pair of a task.

    Raises:
        InputError: the source keeps none, or they are damaged.
    """
    path = task.raw / KEPT_COLUMNS
    try:
        rows = read_rows(path, task.start, task.stop, ["columns"]).column(0)
    except FileNotFoundError:
        raise InputError(
            f"ingest.filters.scores and ingest.blur: the source {task.source} keeps no columns; name them in its "
            "`keep_columns`, which all kinds but debian have"
        ) from None
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{path} is damaged ({error}); run `flame download` again") from None
    return [json.loads(value) for value in rows.to_pylist()]


def _has_forgotten(folder: Path, forgotten: Forgotten) -> bool:
    """Whether a scan holds a picture with the pHash of a forgotten one."""
    hashes = pq.ParquetFile(folder / TABLE).read(["hash"]).column("hash").to_pylist()
    return not forgotten.hashes.isdisjoint(hashes)


def _write(task: ScanTask, pairs: list[RawPair], columns: list[dict[str, Any]], folder: Path) -> UnitRecord:
    rules = task.params.filters
    rows: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    cut_captions = 0
    left: Counter[str] = Counter()
    with (folder / PICTURES).open("wb") as jpegs:
        for pair, scores in zip(pairs, columns or [{}] * len(pairs), strict=True):
            coded, left_out = _with_a_language(pair.captions)
            captions, cuts = clean_captions(coded, task.params.max_caption_chars)
            cut_captions += cuts
            row: dict[str, Any] = {"key": safe_key(f"{task.source}/{pair.key}")}
            try:
                if pair.split not in (None, *SPLITS):
                    detail = f"the source has it in the split {pair.split!r}, which is neither training nor validation"
                    raise PictureError("other_split", detail)
                if not captions:
                    reason = LANGUAGE_CODE if left_out else "no_caption"
                    raise PictureError(reason, left_out or "no text is left after cleaning")
                if found := pair_reason(pair.licence, scores, rules):
                    raise PictureError(*found)
                number = side_number(captions, pair.group)  # of all captions, so that no rule moves a pair
                captions, unwanted = filter_captions(captions, rules)
                left += unwanted
                if not captions:
                    reason = max(unwanted, key=lambda name: (unwanted[name], name))
                    raise PictureError(reason, f"all {unwanted.total()} captions are left out by ingest.filters")
                if pair.image is None:
                    raise _no_picture(pair)
                content = pair.image.read()
                if found := picture_reason(content, task.params.max_pixels, rules):
                    raise PictureError(*found)
                boxes = [] if task.params.blur is None else boxes_of(scores, task.params.blur)
                picture = blurred(read_picture(content, task.params), boxes, task.params.jpeg_quality)
                seen = perceptual_hash(picture.rgb)
                if seen in task.forgotten.hashes:
                    raise PictureError(FORGOTTEN, "its perceptual hash is in opt_out.parquet")
            except PictureError as error:
                failures[row["key"]] = error.reason
                rows.append({**row, "reason": error.reason, "detail": error.detail})
                continue
            if picture.jpeg is None:
                place = (pair.image.path.relative_to(task.pictures).as_posix(), pair.image.offset, pair.image.size)
            else:
                place = (None, jpegs.tell(), len(picture.jpeg))
                jpegs.write(picture.jpeg)
            row |= dict(zip(("file", "offset", "size"), place, strict=True))
            row |= {
                "left_out": left_out,
                "hash": seen,
                "colours": colour_miniature(picture.rgb).tobytes(),
            }
            rows.append(row | {"side": number} | _described(task, pair, captions, picture.rgb.size, boxes))
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / TABLE, compression="zstd")
    counts = {"pairs": len(pairs), "cut_captions": cut_captions, **dict(sorted(left.items()))}
    return UnitRecord(counts=counts, failures=failures)


def _with_a_language(captions: Mapping[str, list[str]]) -> tuple[Mapping[str, list[str]], str | None]:
    """The captions with a valid language code, and a message about the others (None if there are none)."""
    others = sorted(code for code in captions if not is_language_code(code))
    if not others:
        return captions, None
    number = sum(len(captions[code]) for code in others)
    codes = ", ".join(map(shown, others[:5])) + (", ..." if len(others) > 5 else "")
    kept = {code: texts for code, texts in captions.items() if code not in others}
    return kept, f"{number} captions left out: {codes} {'is' if len(others) == 1 else 'are'} no language code"


def _described(
    task: ScanTask, pair: RawPair, captions: dict[str, list[str]], size: tuple[int, int], boxes: list[Box]
) -> dict[str, Any]:
    """The columns of a good pair that do not depend on its picture's bytes."""
    assert pair.image is not None
    primary = primary_language(captions)
    meta = {
        "captions": captions,
        "title": pair.title,
        "keywords": pair.keywords,
        "category": pair.category,
        "licence": pair.licence,
        "source": task.source,
        "sha256": pair.image.sha256,
        "width": size[0],
        "height": size[1],
    }
    return {
        "digest": value_digest([meta, task.params.max_side, task.params.jpeg_quality, *([boxes] if boxes else [])]),
        "sha256": pair.image.sha256,
        "width": size[0],
        "height": size[1],
        "split": pair.split,
        "primary_texts": [text_id(same_text(text)) for text in captions[primary]],
        "other_texts": [
            text_id(same_text(text)) for code, texts in captions.items() if code != primary for text in texts
        ],
        "meta": canonical_json(meta),
    }


@lru_cache(maxsize=16)
def _table(folder: Path) -> pa.Table:
    return pq.ParquetFile(folder / TABLE).read(["key", "digest", "file", "offset", "size", "sha256", "meta"])


def read_row(folder: Path, row: int) -> dict[str, Any]:
    """Key, digest, place of the JPEG, sha256 and meta of a good pair."""
    return {name: column[row].as_py() for name, column in zip(*_columns(_table(folder)), strict=True)}


def _columns(table: pa.Table) -> tuple[list[str], list[pa.ChunkedArray]]:
    return table.column_names, table.columns


def read_jpeg(folder: Path, pictures: Path, row: dict[str, Any]) -> bytes:
    """The JPEG of a row from `read_row`."""
    if row["file"] is not None:
        return ImageRef(pictures / row["file"], row["offset"], row["size"], row["sha256"]).read()
    with (folder / PICTURES).open("rb") as file:
        file.seek(row["offset"])
        return file.read(row["size"])
