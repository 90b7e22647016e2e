"""Cuts a sorted list of keys into chunks at places that the keys themselves determine.

With fixed-size chunks, an added key would shift all later chunks. Here a chunk ends after a key whose hash is small, so
added keys usually change only the chunks they fall into, and results computed for the others remain valid.
(Content-defined chunking, as in LBFS: Muthitacharoen et al., SOSP 2001.)
"""

from __future__ import annotations

from collections.abc import Iterable

from flame_core.data.captions_text import text_id


def cut(keys: Iterable[str], average: int) -> list[tuple[int, int]]:
    """(start, stop) of consecutive chunks of about `average` keys, at least half and at most twice as many.

    Only the last chunk may be smaller.
    """
    smallest, largest = max(1, average // 2), 2 * average
    small_hash = (1 << 64) // (average - smallest + 1)  # makes the mean size `average`
    bounds = []
    start = end = 0
    for end, key in enumerate(keys, start=1):
        size = end - start
        if size == largest or (size >= smallest and text_id(key) < small_hash):
            bounds.append((start, end))
            start = end
    if start < end:
        bounds.append((start, end))
    return bounds
