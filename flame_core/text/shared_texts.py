"""Many texts in memory that all workers of a loader share.

DataLoader sends its dataset to every worker. Strings would be copied; tensors are sent as handles to shared memory.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch


class SharedTexts:
    """Texts by number; each takes its UTF-8 and 8 bytes."""

    def __init__(self, texts: pa.ChunkedArray) -> None:
        whole = texts.cast(pa.large_string()).combine_chunks()
        _, starts, content = whole.buffers()
        places = np.frombuffer(starts, np.int64, len(whole) + 1, 8 * whole.offset) if len(whole) else np.zeros(1, int)
        own = np.frombuffer(content or b"", np.uint8)[places[0] : places[-1]]
        self._starts, self._content = torch.from_numpy(places - places[0]), torch.from_numpy(own.copy())

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> str:
        starts, content = self._views
        if not 0 <= number < len(starts) - 1:
            raise IndexError(f"no text {number} among {len(self)}")
        return str(content[starts[number] : starts[number + 1]], "utf-8")

    @cached_property
    def _views(self) -> tuple[memoryview, memoryview]:
        """The tensors, ten times as fast to index."""
        return self._starts.numpy().data, self._content.numpy().data

    def __getstate__(self) -> dict[str, Any]:
        return {"_starts": self._starts, "_content": self._content}  # views cannot be sent to worker processes
