"""What a file is recognised by."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from markupsafe import escape
from PIL import Image

from flame_core.data.shards import Sample, write_shard
from flame_core.forgetting.traces import Traces
from tests.data.drawings import drawing, encoded

LONG = 'it\'s a "red" bird & a green one'
TRACES = Traces(keys={"s/a-1"}, digests={"ab" * 32}, texts={LONG, "bird"})


def parquet(path: Path, column: pa.Array) -> Path:
    pq.write_table(pa.table({"x": column}), path)
    return path


@pytest.mark.parametrize(
    ("column", "held"),
    [
        (pa.array(["s/a-1", None]), True),
        (pa.array(["s/a-10", "xs/a-1", "a bird"]), False),
        (pa.array(["bird"]).dictionary_encode(), True),
        (pa.array([["no"], ["ab" * 32]]), True),
        (pa.array([[("en", [LONG])]], pa.map_(pa.string(), pa.list_(pa.string()))), True),
        (pa.array([{"a": {"b": "bird"}}]), True),
        (pa.array([1, 2]), False),
    ],
)
def test_parquet(tmp_path: Path, column: pa.Array, held: bool):
    assert TRACES.in_file(parquet(tmp_path / "x.parquet", column)) is held


@pytest.mark.parametrize(
    ("column", "text", "held"),
    [
        ("detail", "looks like s/a-1, which has its captions now", True),
        ("detail", "the same bytes as s/a-1", True),
        ("detail", "looks like s/a-10, which has its captions now", False),
        ("caption", "see s/a-1 there", False),
    ],
)
def test_what_a_ledger_says_of_another_sample(tmp_path: Path, column: str, text: str, held: bool):
    pq.write_table(pa.table({"key": ["s/b", "s/c"], column: [None, text]}), tmp_path / "x.parquet")
    assert TRACES.in_file(tmp_path / "x.parquet") is held


@pytest.mark.parametrize(
    ("text", "held"),
    [
        (json.dumps({"key": "s/a-1"}), True),
        ("see s/a-1.jpg", True),
        ("see s/a-12 and t/s/a-1", False),
        (f"<p>{escape(LONG)}</p>", True),
        (json.dumps([LONG]), True),
        ("<td>bird</td>", True),
        ("a bird sings", False),  # a short caption counts only where it stands alone
        ("AB" * 32, False),
    ],
)
def test_text(tmp_path: Path, text: str, held: bool):
    (tmp_path / "x").write_text(text)
    assert TRACES.in_file(tmp_path / "x") is held


def test_tar_and_bytes(tmp_path: Path):
    def tar(name: str, content: bytes) -> Path:
        with tarfile.open(tmp_path / "x.tar", "w") as file:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        return tmp_path / "x.tar"

    assert TRACES.in_file(tar("s/a-1.jpg", b"\0" * 100))
    assert not TRACES.in_file(tar("s/a-11.jpg", b"\0" * 100))
    assert not TRACES.in_file(tar("t/s/a-1.jpg", b"\0" * 100))
    picture = np.random.default_rng(0).bytes(1000)
    traces = Traces(keys={"k/k"})
    traces.add_picture(picture)
    (tmp_path / "blob").write_bytes(b"\0" * 99 + picture)
    assert traces.in_file(tmp_path / "blob") and not TRACES.in_file(tmp_path / "blob")
    np.save(tmp_path / "x.npy", np.frombuffer(picture, np.uint8))
    assert not traces.in_file(tmp_path / "x.npy")


@pytest.mark.parametrize("profile", [b"", bytes(range(256)) * 40])
def test_pictures_with_the_same_headers_are_told_apart(tmp_path: Path, profile: bytes):
    """Half of a small JPEG is tables that all JPEGs have, and half of many large ones is a profile."""
    one, other = (encoded(drawing(seed, (24, 24)), "JPEG", quality=20, icc_profile=profile) for seed in (1, 2))
    traces = Traces(keys={"k/k"})
    traces.add_picture(one)
    for name, content, held in (("one", one, True), ("other", other, False), ("both", b"\0" * 9 + other + one, True)):
        (tmp_path / name).write_bytes(content)
        assert traces.in_file(tmp_path / name) is held
    flat = encoded(Image.new("RGB", (64, 64), "white"), "JPEG")
    traces = Traces(keys={"k/k"})
    traces.add_picture(flat)
    (tmp_path / "larger").write_bytes(encoded(Image.new("RGB", (256, 256), "white"), "JPEG"))
    assert not traces.in_file(tmp_path / "larger")


def test_a_drawing_that_is_text(tmp_path: Path):
    drawn = b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M1 2 L3 4 L5 6 L7 8 L9 10 L11 12"/></svg>'
    traces = Traces(keys={"k/k"})
    traces.add_picture(drawn)
    (tmp_path / "one.svg").write_bytes(drawn)
    (tmp_path / "other.svg").write_bytes(drawn.replace(b"M1", b"M9"))
    assert traces.in_file(tmp_path / "one.svg") and not traces.in_file(tmp_path / "other.svg")


def test_captions_of_a_shard(tmp_path: Path):
    for name, said in (("held.tar", "bird"), ("not.tar", "a bird")):
        meta = {"captions": {"en": [said]}, "title": "bird"}
        write_shard(tmp_path / name, [Sample("s/b", b"\0" * 100, meta)])
    assert TRACES.in_file(tmp_path / "held.tar") and not TRACES.in_file(tmp_path / "not.tar")


def test_kept_and_read(tmp_path: Path):
    TRACES.write(tmp_path / "a/b.json", reason="r")
    content = json.loads((tmp_path / "a/b.json").read_text())
    assert Traces.read(content) == TRACES and content["reason"] == "r"


def test_what_an_earlier_version_kept_knew_no_views(tmp_path: Path):
    TRACES.write(tmp_path / "b.json")
    content = json.loads((tmp_path / "b.json").read_text())
    del content["views"]
    assert Traces.read(content) == TRACES


@pytest.mark.parametrize("most", [None, 100])
def test_a_picture_that_no_page_could_show_has_no_views(monkeypatch: pytest.MonkeyPatch, most: int | None):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    traces = Traces()
    traces.add_views(encoded(drawing(7), "JPEG"))
    assert len(traces.views) == (2 if most is None else 0)
