"""The captions file of a shard."""

from __future__ import annotations

import pytest

from flame_core.captions.table import (
    Caption,
    captions_at,
    captions_file,
    first_captions,
    read_captions,
    read_shard_captions,
    write_captions,
)
from flame_core.errors import InputError

SHARD = "train/00000.tar"
ROWS = [
    Caption(0, "a", "raw", "one", "en", "x"),
    Caption(0, "a", "raw", "ein", "de", "x"),
    Caption(0, "a", "raw", "another", "en", "x"),
    Caption(0, "a", "short", "uno", "en", "x"),
    Caption(1, "b", "raw", "zwei", "de", "x"),
    Caption(2, "c", "raw", "three", "en", "x"),
]


@pytest.fixture
def captions(tmp_path):
    path = captions_file(tmp_path, SHARD)
    path.parent.mkdir()
    write_captions(path, ROWS)
    return tmp_path


def test_captions_come_back_in_their_order(captions):
    assert read_captions(captions / "train/00000.parquet") == ROWS


def test_captions_are_read_by_kind_and_language(captions):
    path = captions_file(captions, SHARD)
    found = read_shard_captions(path, ["raw"], "en")
    assert (found.rows.tolist(), found.texts) == ([0, 0, 2], ["one", "another", "three"])
    assert read_shard_captions(path, ["raw", "short"]).texts == [each.text for each in ROWS]


def test_the_first_caption_of_a_sample_in_the_file(captions):
    path = captions_file(captions, SHARD)
    assert first_captions(path, "raw", "en") == {0: "one", 2: "three"}
    assert first_captions(path, "raw", "de") == {0: "ein", 1: "zwei"}
    assert first_captions(path, "raw") == {0: "one", 1: "zwei", 2: "three"}
    assert first_captions(path, "long") == {}


def test_a_sample_without_the_kind_has_its_raw_caption(captions):
    places = [(SHARD, 0), (SHARD, 1), (SHARD, 2)]
    assert captions_at(places, captions, "short", "en") == {(SHARD, 0): "uno", (SHARD, 2): "three"}
    assert captions_at(places[1:], captions, "short") == {(SHARD, 1): "zwei", (SHARD, 2): "three"}


@pytest.mark.parametrize("read", [read_captions, lambda path: read_shard_captions(path, ["raw"])])
def test_damaged_and_missing_files_are_named(captions, read):
    path = captions_file(captions, SHARD)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"train/00000\.parquet: not a readable captions file.*`flame caption` again"):
        read(path)
    path.unlink()
    with pytest.raises(InputError, match=r"train/00000\.parquet: not a readable captions file"):
        read(path)
