"""The cores of a container are fewer than those of its machine."""

from __future__ import annotations

import pytest

from flame_core import cores


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000\n", 12),
        ("400000 100000\n", 4),
        ("50000 100000\n", 1),
        ("9900000 100000\n", 12),
        (None, 12),
        ("", 12),
    ],
)
def test_usable_cores(tmp_path, monkeypatch, quota, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(12)))
    monkeypatch.setattr(cores, "QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)
    assert cores.usable_cores() == expected
