"""Where each training sample is stored, in memory that all workers of a loader share.

DataLoader sends its dataset to every worker. Objects would be copied: 800 bytes per sample, which is 2 GB for CC3M in
each of 64 workers. Tensors are sent as handles to shared memory, and take about 50 bytes per sample only once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from flame_core.data.shards import Index
from flame_core.text.shared_texts import SharedTexts


class StoredSample(NamedTuple):
    """Where a sample's picture is; `row` is its position in the shard."""

    key: str
    shard: str
    row: int
    offset: int
    size: int


class SharedIndex:
    """The samples of an index by number."""

    def __init__(self, index: Index) -> None:
        table = index.table
        shards = table.column("shard").combine_chunks().dictionary_encode()
        columns = [shards.indices, *(table.column(name) for name in ("row", "offset", "size"))]
        places = np.stack([column.to_numpy().astype(np.int64) for column in columns], axis=1)
        self.shards: list[str] = shards.dictionary.to_pylist()
        self._places = torch.from_numpy(places)
        self._keys = SharedTexts(table.column("key"))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> StoredSample:
        if not 0 <= number < len(self):
            raise IndexError(f"no sample {number} among {len(self)}")
        shard, *place = self._places[number].tolist()
        return StoredSample(self._keys[number], self.shards[shard], *place)
