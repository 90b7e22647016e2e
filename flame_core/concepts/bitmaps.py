"""Sets of rows as roaring bitmaps, and many of them in one file.

A file of bitmaps is a safetensors file with two tensors per name: `<name>` (the serialised bitmaps, uint8, one after
another) and `<name>.ends` (int64, where each ends). Equal sets give equal bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from pyroaring import BitMap

from flame_core.errors import InputError


def bitmap_of(rows: np.ndarray) -> BitMap:
    """The set of some row numbers."""
    return BitMap(array("I", np.ascontiguousarray(rows, dtype=np.uint32).tobytes()))


def rows_of(rows: BitMap) -> np.ndarray:
    """The row numbers of a set, ascending, uint32."""
    return np.frombuffer(rows.to_array(), np.uint32) if rows else np.empty(0, np.uint32)


def write_bitmaps(path: Path, sets: Mapping[str, Sequence[BitMap]]) -> None:
    """Write named lists of sets."""
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray] = {}
    for name, rows in sets.items():
        contents = [each.serialize() for each in rows]
        arrays[name] = np.frombuffer(b"".join(contents), np.uint8)
        arrays[f"{name}.ends"] = np.cumsum([len(content) for content in contents], dtype=np.int64)
    path.write_bytes(save(arrays))


def read_bitmaps(path: Path) -> dict[str, list[BitMap]]:
    """The named lists of sets in a file.

    Raises:
        InputError: it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
        found = {}
        for name in sorted(arrays):
            if f"{name}.ends" in arrays:
                content, ends = arrays[name].tobytes(), [0, *arrays[f"{name}.ends"].tolist()]
                found[name] = [BitMap.deserialize(content[a:b]) for a, b in pairwise(ends)]
        return found
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}); run `flame concepts` again") from None
