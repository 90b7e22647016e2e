from __future__ import annotations

from multiprocessing.reduction import ForkingPickler

import pyarrow as pa
import pytest
import torch.multiprocessing  # noqa: F401  (teaches the pickler to hand tensors over as handles)

from flame_core.data.shards import INDEX_SCHEMA, Index
from flame_core.training.shared_index import SharedIndex


def index_of(count: int, shard_samples: int = 7) -> Index:
    """Samples whose keys differ in length, some beyond ASCII."""
    rows = [
        {
            "key": f"{'ä' * (i % 3)}/{i}",
            "split": "train",
            "shard": f"train/{i // shard_samples:05}.tar",
            "row": i % shard_samples,
        }
        | {"offset": 3_000_000_000 + 512 * i, "size": 100 + i, "width": 1, "height": 1, "sha256": "", "captions": 1}
        for i in range(count)
    ]
    return Index(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA))


@pytest.mark.parametrize("part", [slice(None), slice(5, 40)])
def test_samples_are_those_of_the_index(part):
    index = Index(index_of(60).table[part])
    shared = SharedIndex(index)
    assert len(shared) == len(index)
    for number, row in enumerate(index):
        assert shared[number] == (row.key, row.shard, row.row, row.offset, row.size)
        assert index[number] == row
    assert index[2:9] == list(index)[2:9]
    assert index[-1] == list(index)[-1]
    assert set(shared.shards) == index.shard_sizes().keys()
    assert sum(index.shard_sizes().values()) == len(index)
    for number in (-1, len(index)):
        with pytest.raises(IndexError):
            shared[number]


def test_an_empty_index_has_no_samples():
    shared = SharedIndex(index_of(0))
    assert len(shared) == 0
    assert shared.shards == []


def test_a_worker_is_handed_the_memory_and_no_copy_of_it():
    one, many = (len(ForkingPickler.dumps(SharedIndex(index_of(n, shard_samples=n)))) for n in (1, 9000))
    assert many < one + 100
