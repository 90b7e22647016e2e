"""How many processes decode pictures, if nobody says."""

from __future__ import annotations

import pytest

from flame_core.settings import Settings


@pytest.mark.parametrize(
    ("device", "cores", "ranks", "expected"),
    [("cpu", 16, 1, 0), ("cuda", 16, 1, 14), ("cuda", 16, 4, 3), ("cuda", 2, 1, 1), ("cuda", 1, 8, 1)],
)
def test_decoding_processes(monkeypatch, device, cores, ranks, expected):
    monkeypatch.setattr(Settings, "torch_device", lambda self: device)
    monkeypatch.setattr("flame_core.settings.usable_cores", lambda: cores)
    assert Settings().decoding_processes(ranks) == expected
    for chosen in (0, 5):
        assert Settings(loader_workers=chosen).decoding_processes(ranks) == chosen
