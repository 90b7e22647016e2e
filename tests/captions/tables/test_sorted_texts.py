"""Texts in any order come out in the order of the shards, whatever fits into memory."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.captions.tables import sorted_texts
from flame_core.captions.tables.sorted_texts import SortedTexts
from flame_core.data.shards import INDEX_SCHEMA, Index

SHARDS = {"train/00000.tar": 5, "train/00001.tar": 1, "train/00002.tar": 7, "val/00000.tar": 4}
GIVEN = [12, 0, 16, 3, 7, 6, 1, 15, 11]  # numbers of samples that have a text; none of train/00001.tar


def index() -> Index:
    names = dict.fromkeys(INDEX_SCHEMA.names)
    places = [(shard, row) for shard, size in SHARDS.items() for row in range(size)]
    rows = [{**names, "key": f"{shard}-{row}", "shard": shard, "row": row} for shard, row in places]
    return Index(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA))


@pytest.mark.parametrize(("at_once", "rows"), [(1 << 18, 4096), (3, 2), (1, 1), (17, 4)])
def test_order_and_digests_do_not_depend_on_what_is_sorted_at_once(tmp_path, monkeypatch, at_once, rows):
    monkeypatch.setattr(sorted_texts, "_RANGE", at_once)
    monkeypatch.setattr(sorted_texts, "_ROWS", rows)
    keys = list(index().keys())
    found = {}
    for name, order in (("a", GIVEN), ("b", sorted(GIVEN, reverse=True))):
        (tmp_path / name).mkdir()
        with SortedTexts(tmp_path / name, index()) as texts:
            for place in order:
                texts.add(place, f"text of {keys[place]}")
            assert texts.samples == len(order)
            found[name] = texts.write(tmp_path / name / "texts.parquet")
        assert [path.name for path in (tmp_path / name).iterdir()] == ["texts.parquet"]
    assert found["a"] == found["b"]
    table = pq.read_table(tmp_path / "a/texts.parquet").to_pydict()
    assert table["key"] == [keys[place] for place in sorted(GIVEN)]
    assert table["text"] == [f"text of {key}" for key in table["key"]]
    assert [rows[:2] for rows in found["a"].values()] == [(0, 3), (3, 3), (3, 7), (7, 9)]
    assert len({digest for _, _, digest in found["a"].values()}) == 4


def test_several_texts_of_a_sample_stay_in_their_order_each_once(tmp_path):
    with SortedTexts(tmp_path, index()) as texts:
        for place, text in ((6, "b"), (0, "z"), (6, "a"), (6, "b"), (0, "z"), (6, "c"), (0, "y")):
            texts.add(place, text)
        rows = texts.write(tmp_path / "texts.parquet")
    assert pq.read_table(tmp_path / "texts.parquet").column("text").to_pylist() == ["z", "y", "b", "a", "c"]
    assert (texts.samples, texts.repeated) == (2, 2)
    assert [each[:2] for each in rows.values()] == [(0, 2), (2, 2), (2, 5), (5, 5)]


def test_a_shards_digest_follows_from_its_own_texts(tmp_path):
    def digests(*places: int) -> list[str]:
        with SortedTexts(tmp_path, index()) as texts:
            for place in places:
                texts.add(place, f"text {place}")
            return [digest for _, _, digest in texts.write(tmp_path / "texts.parquet").values()]

    first, more = digests(0, 6), digests(0, 6, 13)
    assert first[:3] == more[:3] and first[3] != more[3]
