"""Cutting a sorted list of keys into chunks at places that the keys themselves determine.

Fixed-size chunks would all shift behind a key that is added. Here a chunk ends behind a key whose hash is small, so
added keys change the chunks they fall into and mostly no other, and what was computed for the others still holds.
(Content-defined chunking, as in LBFS: Muthitacharoen et al., SOSP 2001.)
"""

from __future__ import annotations

from collections.abc import Sequence

from flame_core.data.captions_text import text_id


def cut(keys: Sequence[str], average: int) -> list[tuple[int, int]]:
    """(start, stop) of consecutive chunks of about `average` keys: at least half and at most twice as many.

    Only the last chunk may be smaller.
    """
    smallest, largest = max(1, average // 2), 2 * average
    small_hash = (1 << 64) // (average - smallest + 1)  # cuts are as rare as makes the mean come out
    bounds = []
    start = 0
    for i, key in enumerate(keys, start=1):
        size = i - start
        if size == largest or (size >= smallest and text_id(key) < small_hash):
            bounds.append((start, i))
            start = i
    if start < len(keys):
        bounds.append((start, len(keys)))
    return bounds
