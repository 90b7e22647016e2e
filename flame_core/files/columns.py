"""Whole columns of tables, compared without a copy of their values in Python."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def is_among(values: pa.Array | pa.ChunkedArray, some: pa.Array | pa.ChunkedArray) -> Any:
    """Whether each of `values` is one of `some`, which have the same type: a mask for `filter`."""
    return pc.call_function("is_in", [values], pc.SetLookupOptions(value_set=some))
