"""Outs that lie in a bucket become those of `data/`: whole and verified, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow.fs import LocalFileSystem

from flame_core.data.buckets import outs, staging
from flame_core.data.buckets.bucket import Bucket
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.settings import settings
from flame_core.stages import embed
from flame_core.training.preparation import prepare
from flame_core.verification import verify, write_digests
from tests.bits import flip
from tests.stages.pipeline import captioned_project, tree


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of `data` at s3://test/there."""
    monkeypatch.setenv("FLAME_STAGE_DIR", str(tmp_path / "stage"))
    settings.cache_clear()
    root = tmp_path / "there"
    monkeypatch.setattr(
        outs, "open_bucket", lambda address: Bucket(address, LocalFileSystem(), f"{tmp_path}{address[9:]}")
    )
    for name, files in (("shards", ("train/00000.tar", "index.parquet")), ("embeddings/train", ("00000.safetensors",))):
        for file in files:
            path = root / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.encode() * 300)
        write_digests(root / name)
    yield root
    staging.release()


NAMES = ["shards", "embeddings/train"]


def test_a_training_has_all_that_it_reads(there, tmp_path, byte_tokenizer):
    params, made = captioned_project(tmp_path / "made", byte_tokenizer, pictures=24)
    embed.run(params, made)
    shutil.rmtree(there)
    made.data.rename(there)
    layout = Layout.find(tmp_path / "project")
    outs.fetch_outs("s3://test/there", outs.OF_A_TRAINING, layout)
    prepared = prepare(params, layout, "small")
    assert len(prepared.selected) == len(prepared.index) > 0
    verify(prepared.large)


def test_outs_are_the_same_bytes_and_those_that_were_here_are_replaced(there, tmp_path):
    layout = Layout.find(tmp_path / "project")
    layout.shards.mkdir(parents=True)
    (layout.shards / "old.tar").write_bytes(b"old")
    (there / "shards" / "readme.md").write_text("not of the out")
    found = outs.fetch_outs("s3://test/there/", NAMES, layout)
    assert [(each.name, each.files) for each in found] == [("shards", 2), ("embeddings/train", 1)]
    (there / "shards" / "readme.md").unlink()
    assert tree(layout.data) == tree(there)
    verify({layout.shards: ["*"], layout.train_embeddings: ["*"]})
    assert (layout.shards / "index.parquet").stat().st_nlink == 2  # no second copy on the disk


@pytest.mark.parametrize("damage", ["flipped", "missing", "no digests", "absent"])
def test_an_out_that_is_not_whole_changes_nothing_here(there, tmp_path, damage):
    layout = Layout.find(tmp_path / "project")
    (layout.shards).mkdir(parents=True)
    (layout.shards / "old.tar").write_bytes(b"old")
    tar = there / "shards" / "train" / "00000.tar"
    match damage:
        case "flipped":
            flip(tar, 100, 3)
            message = r"shards/train/00000\.tar: its sha256 is"
        case "missing":
            tar.unlink()
            message = r"s3://test/there/shards/train/00000\.tar is missing; copy the out to the bucket again"
        case "no digests":
            (there / "shards" / "digests.json").unlink()
            message = r"there/shards has no digests\.json"
        case _:
            (there / "shards").rename(there / "other")
            message = r"s3://test/there/shards: nothing is there"
    with pytest.raises(InputError, match=message):
        outs.fetch_outs("s3://test/there", ["shards"], layout)
    assert tree(layout.data) == {"shards/old.tar": b"old"}


def test_names_that_lead_out_of_data_are_refused(there, tmp_path):
    for name in ("../x", "/etc", ""):
        with pytest.raises(InputError, match="is no out: name folders of"):
            outs.fetch_outs("s3://test/there", [name], Layout.find(tmp_path / "project"))
