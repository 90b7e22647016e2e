"""Rests of hosts are shared by all processes, also of downloads that begin later."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flame_core.data.addresses.courtesy import Courtesy, tidy

LONGEST = 600.0


@contextmanager
def opened(folder: Path) -> Iterator[Courtesy]:
    courtesy = Courtesy(folder, 2)
    try:
        yield courtesy
    finally:
        courtesy.close()


def age(folder: Path) -> None:
    """Make it look as if no host has asked for a rest for an hour."""
    then = time.time() - 3600
    os.utime(folder / "rests", (then, then))


def test_a_download_that_begins_later_shares_the_rests_of_the_first(tmp_path: Path):
    with opened(tmp_path) as first:
        age(tmp_path)
        tidy(tmp_path, LONGEST)
        with opened(tmp_path) as second:
            first.rest("a.org", 30)
            second.rest("b.org", 40)
            assert 29 < second.rests_for("a.org") <= 30 and 39 < first.rests_for("b.org") <= 40
            assert second.rests_for("c.org") == 0


def test_old_rests_are_removed_when_no_download_needs_them(tmp_path: Path):
    with opened(tmp_path) as first:
        first.rest("a.org", 30)
    tidy(tmp_path, LONGEST)
    with opened(tmp_path) as second:
        assert second.rests_for("a.org") > 29
        age(tmp_path)
        tidy(tmp_path, LONGEST)
        assert (tmp_path / "rests").stat().st_size
    tidy(tmp_path, LONGEST)
    assert not (tmp_path / "rests").stat().st_size


def test_a_line_that_a_full_disk_has_cut_costs_only_itself(tmp_path: Path):
    with opened(tmp_path) as first, opened(tmp_path) as second:
        first.rest("a.org", 30)
        with (tmp_path / "rests").open("ab") as file:
            file.write(b'["cut.org", 17')
        first.rest("b.org", 40)
        with (tmp_path / "rests").open("ab") as file:
            file.write(b'7\n[["x"], 1]\n{}\n\xff\n["old.org", 5]\n')
        for each in (first, second):
            assert each.rests_for("a.org") > 29 and each.rests_for("b.org") > 39
            assert each.rests_for("cut.org") == each.rests_for("old.org") == 0
