"""A killed run keeps its finished parts, and the whole is the same as without one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flame_core.measuring import kept_vectors
from flame_core.work import WorkCache

ROWS = np.random.default_rng(0).standard_normal((11, 2, 3)).astype(np.float32)


def keep(work: Path, count: int, asked: list[tuple[int, int]], dies_at: int | None = None) -> np.ndarray:
    """The first rows in parts of 4, which are encoded in blocks of 2; notes the blocks, and dies before one."""

    def blocks(part: slice) -> Iterator[np.ndarray]:
        for start in range(part.start, part.stop, 2):
            if start == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            asked.append((start, min(start + 2, part.stop)))
            yield ROWS[start : min(start + 2, part.stop)].astype(np.float64)

    kept_vectors.PART = 4
    cache = WorkCache(work, "encode")
    return kept_vectors.kept_vectors(
        cache, "v.npy", "encode", count, lambda part: {"rows": ROWS[part].tolist()}, blocks
    )


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    monkeypatch.setattr(kept_vectors, "PART", 4)  # `keep` sets it too, for its separate process


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 11])
def test_vectors_are_encoded_once(tmp_path, count):
    asked = []
    for _ in range(2):
        found = keep(tmp_path, count, asked)
        np.testing.assert_array_equal(found, ROWS[:count])
        assert found.dtype == np.float32 and isinstance(found, np.memmap)
    assert asked == [(start, min(start + 2, count)) for start in range(0, count, 2)]
    assert len(list((tmp_path / "encode").iterdir())) == 1  # no part is left


def test_a_killed_run_continues_after_its_last_finished_part(tmp_path):
    code = f"from tests.measuring.test_kept_vectors import *; keep(Path({str(tmp_path)!r}), 11, [], dies_at=10)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    asked = []
    np.testing.assert_array_equal(keep(tmp_path, 11, asked), ROWS)
    assert asked == [(8, 10), (10, 11)]


def test_a_damaged_part_is_encoded_again(tmp_path):
    with pytest.raises(RuntimeError):
        keep_until(tmp_path, 9)
    (part,) = [each for each in (tmp_path / "encode").iterdir() if np.load(each / "v.npy")[0, 0, 0] == ROWS[4, 0, 0]]
    content = (part / "v.npy").read_bytes()
    (part / "v.npy").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    asked = []
    np.testing.assert_array_equal(keep(tmp_path, 11, asked), ROWS)
    assert asked == [(4, 6), (6, 8), (8, 10), (10, 11)]


def keep_until(work: Path, stop: int) -> None:
    def blocks(part: slice) -> Iterator[np.ndarray]:
        if part.stop > stop:
            raise RuntimeError("stopped")
        yield ROWS[part]

    kept_vectors.kept_vectors(
        WorkCache(work, "encode"), "v.npy", "encode", 11, lambda part: {"rows": ROWS[part].tolist()}, blocks
    )
