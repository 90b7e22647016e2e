from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import webdataset as wds
from PIL import Image

from flame_core.data.shards import (
    INDEX_SCHEMA,
    Index,
    IndexRow,
    PictureReader,
    Sample,
    read_metas,
    read_shard,
    write_shard,
)
from flame_core.errors import InputError


def samples(count: int = 5) -> list[Sample]:
    made = []
    for i in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (16 + i, 12), (40 * i, 90, 200)).save(buffer, "JPEG")
        made.append(Sample(f"toys/ball_{i}", buffer.getvalue(), {"captions": {"en": [f"Ball {i}"], "de": ["Bäll"]}}))
    return made


def test_what_was_written_is_read_back(tmp_path):
    write_shard(tmp_path / "0.tar", samples())
    assert list(read_shard(tmp_path / "0.tar")) == samples()


def test_metadata_are_read_without_the_pictures(tmp_path):
    """The kernel counts the bytes that this process read."""
    made = [Sample(sample.key, sample.jpeg + bytes(1 << 20), sample.meta) for sample in samples()]
    write_shard(tmp_path / "0.tar", made)

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])  # rchar

    before = bytes_read()
    found = list(read_metas(tmp_path / "0.tar"))
    assert bytes_read() - before < 1 << 20  # of 5 MB
    assert found == [(sample.key, sample.meta) for sample in made]


def test_offsets_find_each_picture(tmp_path):
    places = write_shard(tmp_path / "0.tar", samples())
    reader = PictureReader(tmp_path)
    for sample, (offset, size) in zip(samples(), places, strict=True):
        row = IndexRow(sample.key, "train", "0.tar", 0, offset, size, 1, 1, "", 1)
        assert reader.jpeg(row) == sample.jpeg


def test_equal_samples_give_equal_bytes_and_no_time(tmp_path):
    write_shard(tmp_path / "a.tar", samples())
    write_shard(tmp_path / "b.tar", samples())
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert {member.mtime for member in tar} == {0}


def test_webdataset_reads_our_shards(tmp_path):
    write_shard(tmp_path / "0.tar", samples())
    read = list(wds.WebDataset(str(tmp_path / "0.tar"), shardshuffle=False).decode("pil"))
    assert [item["__key__"] for item in read] == [sample.key for sample in samples()]
    assert read[2]["json"]["captions"]["en"] == ["Ball 2"]
    assert read[2]["jpg"].size == (18, 12)


@pytest.mark.parametrize("read", [read_shard, read_metas])
@pytest.mark.parametrize("length", [0, 700, 3000, 5120])
def test_a_cut_shard_is_refused_by_name(tmp_path, length, read):
    path = tmp_path / "0.tar"
    write_shard(path, samples())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"0\.tar: truncated"):
        list(read(path))


@pytest.mark.parametrize("read", [read_shard, read_metas])
def test_a_picture_cut_short_before_zeros_names_its_sample(tmp_path, read):
    path = tmp_path / "0.tar"
    (offset, _), *_ = write_shard(path, [Sample("toys/ball_0", bytes(9000), {})])
    path.write_bytes(path.read_bytes()[: offset + 3000])  # its zeros look like an end mark
    with pytest.raises(InputError, match=r"0\.tar: damaged at sample toys/ball_0: unexpected end of data"):
        list(read(path))


@pytest.mark.parametrize("read", [read_shard, read_metas])
def test_a_damaged_shard_names_the_sample(tmp_path, read):
    path = tmp_path / "0.tar"
    write_shard(path, samples())
    content = bytearray(path.read_bytes())
    header = content.index(b"toys/ball_2.json")
    content[header + 150] ^= 0xFF  # the header's checksum
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"0\.tar.*toys/ball_2"):
        list(read(path))


def test_a_picture_beyond_the_end_names_its_key(tmp_path):
    write_shard(tmp_path / "0.tar", samples(1))
    row = IndexRow("toys/ball_0", "train", "0.tar", 0, 1 << 20, 100, 1, 1, "", 1)
    with pytest.raises(InputError, match="toys/ball_0"):
        PictureReader(tmp_path).jpeg(row)


def test_the_digest_of_a_split_s_rows_is_its_own():
    def table(*sizes: tuple[str, int]) -> pa.Table:
        rows = [
            dict(zip(INDEX_SCHEMA.names, (f"k{i}", split, f"{split}/0.tar", i, 512, size, 9, 9, "", 1), strict=True))
            for i, (split, size) in enumerate(sizes)
        ]
        return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)

    def training(found: pa.Table) -> str:
        return Index(found.filter(pc.field("split") == "train")).digest()

    first = training(table(("train", 1), ("train", 2), ("val", 3)))
    assert first == training(table(("train", 1), ("train", 2), ("val", 4), ("val", 5)))
    assert first != training(table(("train", 1), ("train", 3), ("val", 3)))
    whole = table(*[("train", size) for size in range(9000)])
    parts = pa.concat_tables([whole.slice(0, 100), whole.slice(100)])
    assert training(whole) == training(parts)  # however the file was cut


def rows_of(*places: tuple[str, int]) -> Index:
    """Rows at (shard, row), with a key that says where."""
    rows = [
        dict(zip(INDEX_SCHEMA.names, (f"{shard} {row}", "train", shard, row, 512, 7, 9, 9, "", 1), strict=True))
        for shard, row in places
    ]
    return Index(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA))


@pytest.mark.parametrize("part", [slice(0, 0), slice(0, 1), slice(2, 3), slice(1, 8), slice(None)])
def test_rows_by_shard_are_those_of_a_loop_over_all(part):
    index = Index(rows_of(*[(f"train/{shard}.tar", row) for shard in "2013" for row in range(3)]).table[part])
    expected: dict[str, list[IndexRow]] = {}
    numbers: dict[str, list[int]] = {}
    for number, row in enumerate(index):
        expected.setdefault(row.shard, []).append(row)
        numbers.setdefault(row.shard, []).append(number)
    found = index.by_shard()
    assert list(found) == sorted(expected)
    assert {shard: list(own) for shard, own in found.items()} == expected
    assert {shard: list(own) for shard, own in index.spans().items()} == numbers
    assert list(index.spans()) == list(numbers)
    assert list(index.keys()) == [row.key for row in index]


def test_a_shard_whose_rows_are_torn_apart_is_refused_by_name():
    with pytest.raises(InputError, match=r"the rows of b\.tar do not follow one another; run `flame ingest` again"):
        rows_of(("a.tar", 0), ("b.tar", 0), ("c.tar", 0), ("b.tar", 1)).by_shard()


def test_rows_in_order_are_those_of_the_index_if_it_is_in_order():
    index = rows_of(("a.tar", 0), ("a.tar", 1), ("b.tar", 0), ("c.tar", 3))
    assert index.in_order() is index
    for places in (
        [("b.tar", 0), ("a.tar", 0)],
        [("a.tar", 1), ("a.tar", 0)],
        [("a.tar", 0), ("b.tar", 0), ("a.tar", 1)],
    ):
        assert [(row.shard, row.row) for row in rows_of(*places).in_order()] == sorted(places)
    assert len(rows_of().in_order()) == 0


def test_the_rows_of_a_shard_share_the_index_and_travel_without_it():
    index = rows_of(*[(f"train/{shard:05}.tar", row) for shard in range(200) for row in range(50)])
    before = pa.total_allocated_bytes()
    own = index.by_shard()["train/00007.tar"]
    assert pa.total_allocated_bytes() - before < 50_000  # of 1.3 MB
    sent = pickle.dumps(own)
    assert len(sent) < 10_000
    assert list(pickle.loads(sent)) == list(own) and pickle.loads(sent).digest() == own.digest()
    assert len(pickle.loads(pickle.dumps(rows_of()))) == 0
