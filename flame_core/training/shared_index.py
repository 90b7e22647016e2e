"""Where each training sample is stored, in memory that all workers of a loader share.

DataLoader sends its dataset to every worker. Objects would be copied: 800 bytes per sample, which is 2 GB for CC3M in
each of 64 workers. Tensors are sent as handles to shared memory, and take about 50 bytes per sample only once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from flame_core.data.shards import Index


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
        keys = table.column("key").cast(pa.large_string()).combine_chunks()
        _, starts, content = keys.buffers()
        shards = table.column("shard").combine_chunks().dictionary_encode()
        columns = [shards.indices, *(table.column(name) for name in ("row", "offset", "size"))]
        places = np.zeros((len(keys) + 1, 1 + len(columns)), np.int64)  # the last row holds the end of the last key
        places[:, 0] = np.frombuffer(starts, np.int64, len(keys) + 1, 8 * keys.offset) if len(keys) else 0
        for i, column in enumerate(columns):
            places[:-1, 1 + i] = column.to_numpy()
        self.shards: list[str] = shards.dictionary.to_pylist()
        self._places = torch.from_numpy(places)
        self._keys = torch.from_numpy(np.frombuffer(content or b"", np.uint8).copy())

    def __len__(self) -> int:
        return len(self._places) - 1

    def __getitem__(self, number: int) -> StoredSample:
        if not 0 <= number < len(self):
            raise IndexError(f"no sample {number} among {len(self)}")
        (key, shard, *place), (end, *_) = self._places[number : number + 2].tolist()
        return StoredSample(self._keys[key:end].numpy().tobytes().decode(), self.shards[shard], *place)
