"""A selection of keys: a parquet file that names the training samples a recipe trains on.

The file has a text column `key`; further columns are for people and are not read. `select` returns the named rows of
the training index, in the index's order and with unchanged shard and row. So embeddings and sidecars stay aligned, and
the order of an epoch depends on the seed, the epoch and the selection, not on the file's order. Whole columns are
compared, never single keys in Python. docs/sidecars.md explains the use of selections.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flame_core.data.ledger import lost_pairs
from flame_core.data.shards import INDEX, Index, read_index
from flame_core.errors import InputError
from flame_core.files.columns import is_among
from flame_core.files.regular_files import open_regular
from flame_core.names import shown

KEY = "key"
_NAMED = 3  # keys named in one error
_HASHED = 65536  # keys hashed at once


def select(index: Index, path: Path, shards: Path | None = None) -> Index:
    """The rows of the training index whose keys a parquet file names, in the index's order.

    Args:
        index: all rows of the training split.
        path: the parquet file.
        shards: the folder of the index; with it, an error says what happened to keys that are not in the index.

    Raises:
        InputError: the file cannot be read or has no text column `key`, or it names no key, a key twice, or keys that
            are not in the training index.
    """
    wanted = _read_keys(path)
    keys = _keys(index)
    chosen = is_among(keys, wanted).to_numpy()
    if np.count_nonzero(chosen) != len(wanted):  # an index has each key once, so equal counts exclude any fault
        _refuse_duplicates(wanted, path)
        raise InputError(_unknown_keys(wanted.filter(pa.array(~is_among(wanted, keys).to_numpy())), path, shards))
    return Index(index.table.filter(pa.array(chosen)))


def keys_digest(index: Index) -> str:
    """sha256 of the sorted keys of an index, each followed by a newline: `LC_ALL=C sort keys.txt | sha256sum`."""
    keys = _keys(index)
    if not pc.call_function("less_equal", [keys[:-1], keys[1:]]).to_numpy().all():  # usually sorted by ingest
        keys = keys.sort()
    content = hashlib.sha256()
    for start in range(0, len(keys), _HASHED):
        content.update(("\n".join(keys[start : start + _HASHED].to_pylist()) + "\n").encode())
    return content.hexdigest()


def _keys(index: Index) -> pa.ChunkedArray:
    return index.table.column(KEY).cast(pa.large_string())  # 2 GB of keys are too many for offsets of 32 bits


def _read_keys(path: Path) -> pa.ChunkedArray:
    """The column `key` of a selection, as large strings."""
    try:
        open_regular(path).close()  # no pipe
        with pq.ParquetFile(path, page_checksum_verification=True) as table:
            schema = table.schema_arrow
            if schema.names.count(KEY) != 1:
                raise InputError(
                    f"{path}: a selection has one column `{KEY}`; this file has the columns {', '.join(schema.names)}"
                )
            kind = schema.field(KEY).type
            if not _is_text(kind):
                raise InputError(
                    f"{path}: the column `{KEY}` holds {kind}; keys are text, as in the index of the shards"
                )
            keys = table.read(columns=[KEY]).column(KEY)
            keys.validate(full=True)  # UTF-8 too
            keys = keys.cast(kind.value_type) if pa.types.is_dictionary(kind) else keys
            keys = keys.cast(pa.large_string())
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run the stage that writes this selection, or name another one") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable parquet file ({error}); write the selection again") from None
    if keys.null_count:
        row = keys.is_null().to_numpy().argmax() + 1
        raise InputError(
            f"{path}: {keys.null_count} of {len(keys)} keys are null, the first in row {row}; leave them out"
        )
    if not len(keys):
        raise InputError(f"{path}: names no key, so there is nothing to train on")
    return keys


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(of(kind) for of in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _refuse_duplicates(keys: pa.ChunkedArray, path: Path) -> None:
    counts = keys.value_counts()
    several = counts.filter(pa.array(counts.field("counts").to_numpy() > 1))
    if len(several):
        raise InputError(f"{path}: names keys more than once: {_examples(several.field('values'))}")


def _unknown_keys(unknown: pa.ChunkedArray, path: Path, shards: Path | None) -> str:
    """A message about keys that are not in the training index, with the split or loss that explains them."""
    text = f"{path}: names keys that are not in the training index, {len(unknown):,} in all: {_examples(unknown)}. "
    if shards is None:
        return text + "That index has no keys of the held-out split or of pairs that ingest dropped"
    in_val = is_among(unknown, _keys(read_index(shards, "val"))).to_numpy()
    held_out = unknown.filter(pa.array(in_val))
    lost = lost_pairs(shards, unknown.filter(pa.array(~in_val)))
    parts = []
    if len(held_out):
        parts.append(f"in the held-out split: {len(held_out):,} ({_examples(held_out)})")
    if lost:
        key, reason = min(lost.items())
        parts.append(f"dropped or merged by ingest: {len(lost):,} (such as {shown(key)}, {reason})")
    if rest := len(unknown) - len(held_out) - len(lost):
        parts.append(f"never seen by ingest: {rest:,}")
    return f"{text}Of these: {'; '.join(parts)}. Select from the rows of {shards / INDEX} whose split is train"


def _examples(keys: pa.Array | pa.ChunkedArray) -> str:
    more = f" and {len(keys) - _NAMED:,} more" if len(keys) > _NAMED else ""
    return ", ".join(shown(key) for key in keys[:_NAMED].to_pylist()) + more
