"""Digests of an out: what is damaged, gone or foreign is named with the command that mends it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from flame_core.absent_outs import making
from flame_core.digest import text_sha256
from flame_core.errors import InputError
from flame_core.verification import DIGESTS, Verified, hashing_threads, read_digests, verify, write_digests
from tests.bits import flip


@pytest.fixture
def out(tmp_path) -> Path:
    folder = tmp_path / "data/shards"
    (folder / "train").mkdir(parents=True)
    (folder / "val").mkdir()
    for name in ("index.parquet", "train/00000.tar", "train/00001.tar", "val/00000.tar"):
        (folder / name).write_text(f"content of {name}")
    write_digests(folder)
    return folder


def test_digests_are_those_of_the_files_and_given_ones_are_taken_over(out):
    assert read_digests(out)["train/00000.tar"] == text_sha256("content of train/00000.tar")
    write_digests(out, {"val/00000.tar": "known"})
    assert read_digests(out)["val/00000.tar"] == "known"
    assert len(read_digests(out)) == 4


def test_only_what_is_asked_for_is_read(out):
    flip(out / "val/00000.tar", 3, 1)
    found = verify({out: ["index.parquet", "train/*"]})
    assert (found.files, found.size) == (3, sum((out / n).stat().st_size for n in read_digests(out) if n[:3] != "val"))


def test_every_bit_counts(out):
    path = out / "train/00001.tar"
    stamp = path.stat().st_mtime_ns
    for place in range(path.stat().st_size):
        flip(path, place, place % 8)
        with pytest.raises(
            InputError,
            match=r"train/00001\.tar is damaged: its bytes are not those of digests\.json\nRun `flame ingest`",
        ):
            verify({out: ["*"]})
        flip(path, place, place % 8)
    assert path.stat().st_mtime_ns == stamp
    verify({out: ["*"]})


def test_a_flipped_bit_in_the_digests_themselves_is_never_taken_for_sound(out):
    path = out / DIGESTS
    draw = random.Random(3)
    for place in range(path.stat().st_size):
        bit = draw.randrange(8)
        flip(path, place, bit)
        with pytest.raises(InputError, match="data/shards"):
            verify({out: ["*"]})
        flip(path, place, bit)


def test_files_that_came_and_went_are_named(out):
    (out / "train/00000.tar").unlink()
    (out / "val/stray.tar").touch()
    with pytest.raises(
        InputError, match=r"(?s)train/00000\.tar is missing.*val/stray\.tar is not in its digests\.json"
    ):
        verify({out: ["*"]})
    (out / DIGESTS).unlink()
    with pytest.raises(InputError, match=r"digests\.json is missing.*run `flame ingest`"):
        verify({out: ["*"]})


def test_what_file_systems_leave_is_let_be(out):
    for name in (".DS_Store", "train/._00000.tar", "val/.nfs00000000deadbeef"):
        (out / name).touch()
    assert verify({out: ["*"]}).files == 4


@pytest.mark.parametrize("content", ["[]", '{"a": 1}', "{", "\udcff"])
def test_digests_that_are_none_are_damaged(out, content):
    (out / DIGESTS).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"digests\.json is damaged"):
        verify({out: ["*"]})


def test_many_damaged_files_are_counted(out):
    for number in range(9):
        (out / f"train/{number:05}.tar").write_text("other")
    write_digests(out)
    digests = read_digests(out)
    (out / DIGESTS).write_text(json.dumps(dict.fromkeys(digests, "0" * 64)))
    with pytest.raises(InputError, match=r"and 6 more\nRun `flame ingest`: undamaged work is kept"):
        verify({out: ["*"]})


@pytest.mark.parametrize(("quota", "expected"), [("300000 100000\n", 3), ("max 100000\n", 8)])
def test_a_container_hashes_with_the_cores_that_it_is_granted(tmp_path, monkeypatch, quota, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(12)))
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    monkeypatch.setattr("flame_core.cores.QUOTA", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text(quota)
    assert hashing_threads() == expected


def test_the_command_that_makes_an_out():
    assert making(Path("data/llm")) == "flame fetch-llm"
    assert making(Path("data/models/flame")) == "flame train flame"
    assert making(Path("data/reports/my-recipe")) == "flame evaluate my-recipe"


def test_what_was_verified_is_told_in_bytes_and_seconds():
    assert str(Verified(2, 1_500_000, 0.5) + Verified(1, 3_200_000_000, 3.5)) == "3.2 GB in 4.0 s"
