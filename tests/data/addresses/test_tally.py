"""Live progress: counts of several processes, added up."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from flame_core.data.addresses import tally


def test_counts_of_all_processes_and_the_commonest_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(tally, "_EVERY", 0.0)
    monkeypatch.setattr(tally, "_SAID", 0.05)
    caplog.set_level(logging.INFO, "flame_core")
    with tally.followed(tmp_path / "progress"):
        for reasons in (["ok"] * 6 + ["gone"] * 2, ["timeout", "cut", "gone", "tls"]):
            counts = tally.Tally(tmp_path / "progress")
            for reason in reasons:
                counts.add(reason)
        (tmp_path / "progress" / "damaged").write_text("{")
        assert tally.read_tallies(tmp_path / "progress").total() == 12
    assert "12 addresses" in caplog.messages[-1]
    assert tally.told(tally.read_tallies(tmp_path / "progress"), 6.0).startswith(
        "12 addresses, 2/s, 50.0% good; gone 25.0%, "
    )
    assert tally.told(tally.Counter(ok=5), 1.0) == "5 addresses, 5/s, 100.0% good"


def test_what_is_being_written_is_not_counted_twice(tmp_path: Path):
    counts = tally.Tally(tmp_path)
    counts.add("ok")
    counts.write()
    (written,) = tmp_path.iterdir()
    (tmp_path / f".{written.name}.123").write_bytes(written.read_bytes())
    assert tally.read_tallies(tmp_path).total() == 1
