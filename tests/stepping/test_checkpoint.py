"""Damaged checkpoints: a part with one wrong bit is never used to resume, and training ends with the same weights."""

from __future__ import annotations

import random
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from flame_core.errors import ResourceError
from flame_core.files.weights import save_weights
from flame_core.processes.ranks import Ranks
from flame_core.settings import settings
from flame_core.stepping import checkpoint
from flame_core.training.loop import train
from flame_core.work import UnitRecord, WorkCache
from tests.bits import flip
from tests.training.processes import on_ranks
from tests.training.world import recipe, samples_of, write_world

PARAMS = recipe(epochs=2)  # 6 steps


def made(step: int) -> checkpoint.Checkpoint:
    torch.manual_seed(step)
    weights = {f"layer{i}": torch.randn(8, 8) for i in range(4)}
    optimizer = {"state": {i: {"exp_avg": torch.randn(8, 8)} for i in range(4)}, "param_groups": [{"lr": 0.1}]}
    metrics = [{"step": float(i), "loss": 1.0} for i in range(step)]
    return checkpoint.Checkpoint(step, weights, optimizer, (torch.get_rng_state(), None), metrics)


def in_two_parts(folder: Path) -> None:
    """Steps 3 and 6, saved by two ranks one after the other, without communication between them."""
    for step in (3, 6):
        for rank in range(2):
            path = folder / f"step-{step:08}"
            path.mkdir(parents=True, exist_ok=True)
            checkpoint._write(checkpoint._part(made(step), Ranks(rank, 2)), path / f"{rank:05}.pt")


def test_a_saved_checkpoint_is_read_back_and_its_digests_are_those_of_sha256sum(tmp_path):
    checkpoint.save(tmp_path, made(3), keep=2)
    assert checkpoint.resumed_at(tmp_path) is None
    assert checkpoint.load(tmp_path).step == 3
    assert checkpoint.resumed_at(tmp_path) == 3
    line = (tmp_path / "step-00000003/00000.sha256").read_text()
    import hashlib

    content = (tmp_path / "step-00000003/00000.pt").read_bytes()
    assert line == f"{hashlib.sha256(content).hexdigest()}  00000.pt\n"


def test_what_a_kill_left_half_written_goes_with_the_next_checkpoint(tmp_path):
    for step in (4, 6):
        (tmp_path / f".step-{step:08}").mkdir()
        (tmp_path / f".step-{step:08}/00000.pt").write_bytes(bytes(100))
    checkpoint.save(tmp_path, made(6), keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000006"]
    assert checkpoint.load(tmp_path).step == 6


@pytest.mark.parametrize("name", ["00000.pt", "00001.pt", "00000.sha256", "00001.sha256"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "grow"])
def test_a_damaged_part_sends_training_back_to_the_checkpoint_before(tmp_path, caplog, name, damage):
    in_two_parts(tmp_path)
    path = tmp_path / "step-00000006" / name
    content = path.read_bytes()
    if damage == "flip":
        flip(path, len(content) // 2, 3)
    elif damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "cut" else content + b"\0")
    found = checkpoint.load(tmp_path)
    assert (found.step, len(found.metrics)) == (3, 3)
    assert all(torch.equal(found.model[key], weight) for key, weight in made(3).model.items())
    assert f"step-00000006 is damaged ({name[:5]}.pt)" in caplog.text
    assert not (tmp_path / "step-00000006").exists()  # else it would be counted among those that are kept


def test_a_last_part_that_is_gone_with_its_digest_is_noticed(tmp_path, caplog):
    in_two_parts(tmp_path)
    for name in ("00001.pt", "00001.sha256"):
        (tmp_path / "step-00000006" / name).unlink()
    assert checkpoint.load(tmp_path).step == 3
    assert "lacks a part" in caplog.text


def test_if_all_are_damaged_it_says_so_and_starts_from_the_beginning(tmp_path, caplog):
    in_two_parts(tmp_path)
    for path in tmp_path.rglob("00000.pt"):
        flip(path, 700, 0)
    assert checkpoint.load(tmp_path) is None
    assert "no undamaged checkpoint; training starts from the beginning" in caplog.text


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow beyond 4 KB; to a write, this is like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_and_leaves_no_checkpoint(tmp_path):
    said = r"checkpoints: File too large.*run the same command again"
    with pytest.raises(ResourceError, match=said), full_disk():
        checkpoint.save(tmp_path / "checkpoints", made(3), keep=2)
    assert checkpoint.load(tmp_path / "checkpoints") is None


def test_a_full_disk_is_said_where_weights_are_written(tmp_path):
    def write(folder: Path) -> UnitRecord:
        save_weights(torch.nn.Linear(64, 64), folder / "model.safetensors")
        return UnitRecord()

    with pytest.raises(ResourceError, match="train: File too large"), full_disk():
        WorkCache(tmp_path, "train").get({}, write)
    assert not list((tmp_path / "train").iterdir())


def _loaded(ranks: Ranks, folder: Path) -> int:
    found = checkpoint.load(folder, ranks)
    return 0 if found is None else found.step


@pytest.mark.slow
def test_all_ranks_go_back_where_one_of_them_finds_damage(tmp_path):
    in_two_parts(tmp_path / "checkpoints")
    flip(tmp_path / "checkpoints/step-00000006/00001.pt", 900, 5)  # the share of rank 1
    assert on_ranks(2, _loaded, tmp_path, tmp_path / "checkpoints") == [3, 3]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a world and its checkpoints after each step, and the weights of the undisturbed training."""
    folder = tmp_path_factory.mktemp("rot")
    write_world(folder)
    every_step = settings().model_copy(update={"checkpoint_seconds": 0.0, "checkpoints_kept": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flame_core.training.loop.settings", lambda: every_step)
        tower, metrics, _ = train(samples_of(folder, PARAMS), PARAMS, folder / "checkpoints")
    return folder, tower.state_dict(), metrics


def resumes_alike(trained, folder: Path) -> bool:
    world, weights, metrics = trained
    tower, again, _ = train(samples_of(world, PARAMS), PARAMS, folder)
    return again == metrics and all(torch.equal(weights[name], w) for name, w in tower.state_dict().items())


def sweep(trained, tmp_path: Path, places: int) -> int:
    """Flip one bit at seeded places in each file of the newest checkpoint and resume; returns the number of flips."""
    draw = random.Random(17)
    newest = sorted((trained[0] / "checkpoints").iterdir())[-1].name
    flips = 0
    for file in sorted((trained[0] / "checkpoints" / newest).iterdir()):
        for _ in range(places):
            shutil.rmtree(tmp_path / "damaged", ignore_errors=True)
            shutil.copytree(trained[0] / "checkpoints", tmp_path / "damaged")
            place, bit = draw.randrange(file.stat().st_size), draw.randrange(8)
            flip(tmp_path / "damaged" / newest / file.name, place, bit)
            assert resumes_alike(trained, tmp_path / "damaged"), (file.name, place, bit)
            flips += 1
    return flips


def test_flipped_bits_in_a_checkpoint_change_no_model(trained, tmp_path):
    assert sweep(trained, tmp_path, places=2) == 4


@pytest.mark.slow
def test_many_flipped_bits_in_a_checkpoint_change_no_model(trained, tmp_path, record_property):
    flips = sweep(trained, tmp_path, places=32)
    record_property("flipped bits in checkpoints", flips)
    assert flips == 64
