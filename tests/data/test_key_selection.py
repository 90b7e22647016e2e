from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.data.key_selection import keys_digest, select
from flame_core.data.ledger import LEDGER, LedgerEntry, ledger_table
from flame_core.data.shards import INDEX, INDEX_SCHEMA, Index, read_index
from flame_core.errors import InputError

TRAIN, VAL = [f"toys/{i:03}" for i in range(200)], ["toys/v1", "toys/v2"]


def row(key: str, split: str, number: int) -> dict:
    place = {"key": key, "split": split, "shard": f"{split}/{number // 50:05}.tar", "row": number % 50}
    return place | {"offset": 512, "size": 9, "width": 1, "height": 1, "sha256": "", "captions": 1}


@pytest.fixture
def shards(tmp_path) -> Path:
    """An index of 200 training samples in 4 shards and 2 held-out ones, and a ledger of 4 pairs."""
    folder = tmp_path / "shards"
    folder.mkdir()
    rows = [row(key, "train", i) for i, key in enumerate(TRAIN)] + [row(key, "val", i) for i, key in enumerate(VAL)]
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), folder / INDEX)
    entries = [
        LedgerEntry("toys", "toys/gone", "dropped", "no_caption", ""),
        LedgerEntry("toys", "toys/twin", "merged", "equal_picture", ""),
        LedgerEntry("toys", "toys/v1", "dropped", "duplicate_key", ""),  # another pair of the same key
        LedgerEntry("toys", "toys/007", "changed", "caption_of_val", ""),
    ]
    pq.write_table(ledger_table(entries), folder / LEDGER)
    return folder


@pytest.fixture
def index(shards) -> Index:
    return read_index(shards, "train")


def write(path: Path, keys: list[str] | pa.Array, **options) -> Path:
    pq.write_table(pa.table({"why": [0.5] * len(keys), "key": keys}), path, **options)
    return path


def test_a_selection_of_all_keys_is_the_index(tmp_path, index):
    assert select(index, write(tmp_path / "all.parquet", TRAIN)).table.equals(index.table)


@pytest.mark.parametrize("seed", range(5))
def test_the_rows_are_those_of_the_index_in_its_order(tmp_path, index, seed):
    draw = random.Random(seed)
    keys = draw.sample(TRAIN, draw.randrange(1, 200))
    found = select(index, write(tmp_path / "some.parquet", keys))
    assert list(found) == [each for each in index if each.key in keys]


@pytest.mark.parametrize("seed", range(5))
def test_the_digest_is_of_the_keys_and_not_of_the_file(tmp_path, index, seed):
    draw = random.Random(seed)
    keys = draw.sample(TRAIN, draw.randrange(1, 200))
    first = write(tmp_path / "a.parquet", keys, compression="zstd")
    draw.shuffle(keys)
    second = write(tmp_path / "b.parquet", keys, compression="none", row_group_size=7)
    assert first.read_bytes() != second.read_bytes()
    expected = hashlib.sha256("".join(f"{key}\n" for key in sorted(keys)).encode()).hexdigest()
    assert keys_digest(select(index, first)) == keys_digest(select(index, second)) == expected


def test_the_digest_of_keys_in_another_order_of_more_than_one_piece(monkeypatch, index):
    monkeypatch.setattr("flame_core.data.key_selection._HASHED", 7)
    backwards = Index(index.table.take(list(range(199, -1, -1))))
    expected = hashlib.sha256("".join(f"{key}\n" for key in TRAIN).encode()).hexdigest()
    assert keys_digest(backwards) == keys_digest(index) == expected


def test_another_selection_has_another_digest(tmp_path, index):
    digests = {keys_digest(select(index, write(tmp_path / "s", TRAIN[:i]))) for i in range(1, 40)}
    assert len(digests) == 39


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_keys_may_be_any_type_of_text(tmp_path, index, kind):
    keys = pa.array(["toys/003", "toys/001"]).cast(kind)
    assert [each.key for each in select(index, write(tmp_path / "s.parquet", keys))] == ["toys/001", "toys/003"]


def test_unknown_keys_are_named_and_counted(tmp_path, index):
    path = write(tmp_path / "s.parquet", ["toys/001", *(f"toys/x{i}" for i in range(5))])
    with pytest.raises(InputError, match=r"index, 5 in all: 'toys/x0', 'toys/x1', 'toys/x2' and 2 more\. That index"):
        select(index, path)


def test_an_error_says_which_keys_are_held_out_and_which_were_lost(tmp_path, shards, index):
    path = write(tmp_path / "s.parquet", ["toys/001", "toys/gone", "toys/twin", "toys/v1", "toys/v2", "toys/typo"])
    with pytest.raises(InputError) as error:
        select(index, path, shards)
    assert str(error.value) == (
        f"{path}: names keys that are not in the training index, 5 in all: 'toys/gone', 'toys/twin', 'toys/v1' "
        "and 2 more. Of these: in the held-out split: 2 ('toys/v1', 'toys/v2'); dropped or merged by ingest: 2 (such "
        f"as 'toys/gone', no_caption); never seen by ingest: 1. Select from the rows of {shards}/index.parquet whose "
        "split is train"
    )


def test_keys_that_stand_twice_are_refused_also_beside_unknown_ones(tmp_path, index):
    path = write(tmp_path / "s.parquet", ["toys/001", "toys/002", "toys/001", "toys/typo"])
    with pytest.raises(InputError, match=r"s\.parquet: names keys more than once: 'toys/001'$"):
        select(index, path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"key": pa.array([], pa.string())}), "names no key"),
        (pa.table({"keys": ["toys/001"], "shard": ["train/00000.tar"]}), "has the columns keys, shard"),
        (pa.table({"key": [1, 2]}), "holds int64; keys are text"),
        (pa.table({"key": [b"toys/001"]}), "holds binary; keys are text"),
        (pa.table({"key": pa.array(["toys/001", None, None])}), "2 of 3 keys are null, the first in row 2"),
        (pa.table({"key": [{"key": "toys/001"}]}), "keys are text"),
        (pa.table([["toys/001"], ["toys/002"]], names=["key", "key"]), "one column `key`"),
        (
            pa.table({"key": pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff"))}),
            "not a readable parquet file",
        ),
    ],
)
def test_what_is_no_selection_is_refused(tmp_path, index, table, message):
    pq.write_table(table, tmp_path / "s.parquet")
    with pytest.raises(InputError, match=rf"s\.parquet: .*{message}"):
        select(index, tmp_path / "s.parquet")


def test_a_missing_a_damaged_and_a_foreign_file_are_refused_by_name(tmp_path, index):
    path = tmp_path / "s.parquet"
    with pytest.raises(InputError, match=r"s\.parquet is missing"):
        select(index, path)
    for content in (b"", b"toys/001\n", write(path, TRAIN).read_bytes()[:-40]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"s\.parquet: not a readable parquet file"):
            select(index, path)
    with pytest.raises(InputError, match=r"not a readable parquet file .*a folder"):
        select(index, tmp_path)
