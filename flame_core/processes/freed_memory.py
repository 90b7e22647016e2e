"""Lets a process keep memory that it frees, for arithmetic on a CPU whose tensors of megabytes come and go.

By default glibc returns such memory to the kernel, which clears every page again at the next use. That took 6 % of the
text engine's time. No result depends on it.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_KEPT = 512 << 20  # bytes
_LARGEST = 32 << 20  # bytes of a block that is kept; glibc accepts no more


def keep_freed_memory() -> bool:
    """Keep up to half a gigabyte of freed memory; False where the C library has no such setting."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_TRIM_THRESHOLD, _KEPT) and mallopt(_MMAP_THRESHOLD, _LARGEST))
