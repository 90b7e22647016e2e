"""What a training reads is verified, and checkpoints that may come from damaged data are set aside."""

from __future__ import annotations

import pytest

from flame_core.errors import InputError
from flame_core.stages.train import _verify
from flame_core.verification import write_digests
from tests.bits import flip


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "data/shards"
    (folder / "train").mkdir(parents=True)
    (folder / "train/00000.tar").write_bytes(bytes(1000))
    write_digests(folder)
    return folder


def test_checkpoints_stay_where_the_data_are_sound(shards, tmp_path):
    checkpoints = tmp_path / "train-checkpoints/abc"
    (checkpoints / "step-00000003").mkdir(parents=True)
    assert _verify({shards: ["train/*"]}, checkpoints).size == 1000
    assert checkpoints.is_dir()


@pytest.mark.parametrize("times", [1, 2])
def test_checkpoints_are_set_aside_where_the_data_are_damaged(shards, tmp_path, times):
    flip(shards / "train/00000.tar", 500, 7)
    checkpoints = tmp_path / "train-checkpoints/abc"
    for _ in range(times):
        (checkpoints / "step-00000003").mkdir(parents=True)
        with pytest.raises(InputError, match=r"(?s)00000\.tar is damaged.*`flame ingest`.*kept in .*abc\.doubtful"):
            _verify({shards: ["train/*"]}, checkpoints)
        assert not checkpoints.exists()
    assert (tmp_path / "train-checkpoints/abc.doubtful/step-00000003").is_dir()


def test_without_checkpoints_nothing_is_said_of_them(shards, tmp_path):
    flip(shards / "train/00000.tar", 500, 7)
    with pytest.raises(InputError) as caught:
        _verify({shards: ["train/*"]}, tmp_path / "none")
    assert "doubtful" not in str(caught.value)
