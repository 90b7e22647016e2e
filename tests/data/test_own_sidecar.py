"""Values of another program by key: each lands at the place of its sample, whatever their order and the index's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.data.own_sidecar import store_by_key
from flame_core.data.shards import INDEX, INDEX_SCHEMA, read_index
from flame_core.data.sidecars import Sidecar, open_sidecars
from flame_core.errors import InputError
from flame_core.layout import Layout

PLACES = [("train/00000.tar", 2), ("train/00000.tar", 0), ("train/00000.tar", 1), ("train/00001.tar", 0)]
KEYS = [f"toys/{shard[6:11]}_{row}" for shard, row in PLACES]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A project whose index has the rows of a shard in another order than the shard."""
    common = {"split": "train", "offset": 512, "size": 9, "width": 1, "height": 1, "sha256": "", "captions": 1}
    rows = [common | {"key": key, "shard": shard, "row": row} for key, (shard, row) in zip(KEYS, PLACES, strict=True)]
    held_out = common | {"key": "toys/held-out", "split": "val", "shard": "val/00000.tar", "row": 0}
    (tmp_path / "data/shards").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([*rows, held_out], schema=INDEX_SCHEMA), tmp_path / "data/shards" / INDEX)
    return Layout(tmp_path, tmp_path)


def vectors_of(keys: list[str]) -> np.ndarray:
    """A vector that tells the key."""
    return np.array([[int(key[5:10]), int(key[11:])] if key in KEYS else [7, 7] for key in keys], np.float32)


def test_each_value_lies_at_the_place_of_its_sample(layout):
    keys = ["toys/held-out", *reversed(KEYS)]
    store_by_key(layout, "vectors", keys, vectors_of(keys), {"model": "mine"})
    given = {"vectors": layout.data / "sidecars/vectors"}
    read = open_sidecars({"a_term": ["vectors"]}, given, read_index(layout.shards, "train"))["vectors"].read(PLACES)
    assert read.tolist() == vectors_of(KEYS).tolist()


def test_the_order_of_the_keys_changes_no_byte_and_another_value_does(layout):
    digests = []
    for keys, values in ((KEYS, vectors_of(KEYS)), (KEYS[::-1], vectors_of(KEYS)[::-1]), (KEYS, vectors_of(KEYS) + 1)):
        store_by_key(layout, "vectors", keys, values, {})
        digests.append(Sidecar(layout.data / "sidecars/vectors").digest)
    assert digests[0] == digests[1] != digests[2]


def test_values_that_do_not_fit_the_samples_are_refused(layout):
    values = vectors_of(KEYS)
    with pytest.raises(InputError, match=r"1 of 4 training samples have no value, such as toys/00001_0"):
        store_by_key(layout, "vectors", KEYS[:3], values[:3], {})
    with pytest.raises(InputError, match=r"the key toys/00001_0 stands more than once"):
        store_by_key(layout, "vectors", [*KEYS, KEYS[3]], np.concatenate([values, values[3:]]), {})
    with pytest.raises(InputError, match=r"3 values for 4 keys"):
        store_by_key(layout, "vectors", KEYS, values[:3], {})
    assert not (layout.data / "sidecars").exists()


def test_a_fault_names_the_stage_of_the_project(layout):
    store_by_key(layout, "vectors", KEYS, vectors_of(KEYS), {}, stage="my-vectors")
    (layout.data / "sidecars/vectors/00001.safetensors").unlink()
    with pytest.raises(InputError, match=r"run `dvc repro my-vectors` again"):
        Sidecar(layout.data / "sidecars/vectors").read(PLACES)
