"""Shards in a bucket give the list, and the samples, of the same shards in a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow.fs import LocalFileSystem

from flame_core.data.buckets import staging
from flame_core.data.buckets.bucket import Bucket
from flame_core.data.sources import bucket_shards
from flame_core.data.sources.bucket_shards import matches
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.settings import settings
from flame_core.stages import download, ingest
from tests.bits import flip
from tests.data.sources.test_webdataset import members_of, write_tar
from tests.stages.pipeline import pipeline_params, tree


def _open(address: str) -> Bucket:
    """A folder of this machine, which pyarrow reads by the same interface, under an address."""
    return Bucket(address, LocalFileSystem(), address.removeprefix("s3://test"))


@pytest.fixture(autouse=True)
def _local_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(bucket_shards, "open_bucket", _open)
    for name, value in (("STAGE_DIR", str(tmp_path / "stage")), ("WORKERS", "1")):
        monkeypatch.setenv(f"FLAME_{name}", value)
    settings.cache_clear()
    yield
    staging.release()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "bucket" / "wds"
    (folder / "more").mkdir(parents=True)
    write_tar(folder / "00000.tar", members_of(*range(8)))
    write_tar(folder / "more" / "00001.tar", members_of(*range(8, 16)))
    write_tar(folder / "more" / "00002.tar", members_of(*range(16, 20)))
    (folder / "00000_stats.json").write_text("{}")
    (folder / "readme.md").write_text("x")
    (folder / "other").mkdir()
    (folder / "other" / "x.bin").write_bytes(b"x")
    return folder


def params_of(path: str, **values: object) -> Params:
    return pipeline_params({"s": {"kind": "webdataset", "path": path, "shards": "**/0*.tar", **values}})


def run(root: Path, path: str, **values: object) -> Layout:
    layout = Layout.find(root)
    for stage in (download, ingest):
        stage.run(params_of(path, **values), layout)
    return layout


def test_a_bucket_gives_the_bytes_of_a_folder(shards, tmp_path):
    local = run(tmp_path / "a", str(shards), val_shards="00002.tar")
    staged = run(tmp_path / "b", f"s3://test{shards}", val_shards="00002.tar")
    assert tree(staged.raw) == tree(local.raw) and tree(staged.shards) == tree(local.shards)
    unused = {group["reason"] for group in json.loads((staged.raw / "s" / "source.json").read_text())["unused"]}
    assert unused == {"side_file", "not_matched"}
    (place,) = (tmp_path / "stage").iterdir()
    assert set(tree(place / "files")) == {"00000.tar", "more/00001.tar", "more/00002.tar"}


def test_ingest_makes_deleted_copies_again_and_asks_nobody_while_they_are_here(shards, tmp_path):
    layout = run(tmp_path / "a", f"s3://test{shards}")
    first, moved = tree(layout.shards), shards.with_name("away")
    shutil.rmtree(layout.work)
    shards.rename(moved)
    ingest.run(params_of(f"s3://test{shards}"), layout)
    assert tree(layout.shards) == first
    moved.rename(shards)
    staging.release()
    shutil.rmtree(tmp_path / "stage")
    shutil.rmtree(layout.work)
    ingest.run(params_of(f"s3://test{shards}"), layout)
    assert tree(layout.shards) == first


def test_a_bucket_that_changed_since_it_was_listed_is_refused_by_name(shards, tmp_path):
    layout = run(tmp_path / "a", f"s3://test{shards}")
    staging.release()
    shutil.rmtree(tmp_path / "stage")
    flip(shards / "more" / "00001.tar", 600, 3)
    with pytest.raises(InputError, match=r"more/00001\.tar: its sha256 is"):
        ingest.run(params_of(f"s3://test{shards}"), layout)
    write_tar(shards / "more" / "00001.tar", members_of(8))
    with pytest.raises(
        InputError, match=r"more/00001\.tar has [\d,]+ bytes, and had [\d,]+; run `flame download` again"
    ):
        ingest.run(params_of(f"s3://test{shards}"), layout)
    (shards / "more" / "00001.tar").unlink()
    with pytest.raises(InputError, match=r"more/00001\.tar is gone; run `flame download` again"):
        ingest.run(params_of(f"s3://test{shards}"), layout)
    download.run(params_of(f"s3://test{shards}"), layout)
    ingest.run(params_of(f"s3://test{shards}"), layout)


def test_a_copy_that_the_disk_damaged_is_replaced(shards, tmp_path):
    layout = run(tmp_path / "a", f"s3://test{shards}")
    first = tree(layout.raw)
    (copy,) = (tmp_path / "stage").glob("*/files/00000.tar")
    flip(copy, 600, 3)
    download.run(params_of(f"s3://test{shards}"), layout)
    assert copy.read_bytes() == (shards / "00000.tar").read_bytes() and tree(layout.raw) == first


def test_addresses_without_shards_are_refused(shards, tmp_path):
    layout = Layout.find(tmp_path / "a")
    with pytest.raises(InputError, match=r"holds no file '\*\.zip'; `shards` must match some"):
        download.run(params_of(f"s3://test{shards}", shards="*.zip"), layout)
    with pytest.raises(InputError, match="none of the shards matches val_shards 'val"):
        download.run(params_of(f"s3://test{shards}", val_shards="val*"), layout)
    with pytest.raises(InputError, match="nothing is there; correct the address"):
        download.run(params_of(f"s3://test{shards}-none"), layout)
    assert not (tmp_path / "stage").exists()


@pytest.mark.parametrize(
    "pattern", ["*.tar", "**/*.tar", "more/*.tar", "*/0000?.tar", "**/more/*", "x", "**/*", "[!0]*"]
)
def test_patterns_are_read_as_in_a_folder(shards, pattern):
    files = [path for path in shards.rglob("*") if path.is_file()]
    expected = {path for path in shards.glob(pattern) if path.is_file()}
    assert {path for path in files if matches(path.relative_to(shards).as_posix(), pattern)} == expected
