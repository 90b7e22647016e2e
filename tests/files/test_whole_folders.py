"""A scratch folder that cannot be made ends in an error, not in an endless wait; who works at the same place waits."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flame_core.files.whole_folders import alone, publish, scratch, scratch_below


@pytest.mark.parametrize("make", [scratch, scratch_below])
def test_the_parent_leads_to_a_disk_that_is_not_mounted(tmp_path: Path, make):
    (tmp_path / "state").symlink_to(tmp_path / "not-mounted/state")
    with pytest.raises(FileNotFoundError), make(tmp_path / "state/work"):
        pass


def test_the_parent_takes_no_folders():
    with pytest.raises(FileNotFoundError), scratch(Path("/proc")):
        pass


def test_one_at_a_time_works_at_a_place_and_the_others_say_that_they_wait(tmp_path: Path, caplog):
    caplog.set_level(logging.INFO)
    place, at_work, most = tmp_path / "checkpoints/digest", list[int](), list[int]()

    def work(number: int) -> None:
        with alone(place):
            at_work.append(number)
            most.append(len(at_work))
            while not most[1:] and "waiting for it" not in caplog.text:  # until another one has come
                time.sleep(0.01)
            at_work.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5
    assert list(place.parent.iterdir()) == []
    assert 1 <= caplog.text.count("another process computes the same already; waiting for it") <= 4


def test_who_is_killed_at_a_place_holds_it_no_longer(tmp_path: Path):
    code = (
        "import os, sys; from pathlib import Path; from flame_core.files.whole_folders import alone\n"
        "with alone(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, tmp_path / "digest"])
    assert killed.returncode == -9 and (tmp_path / "digest.lock").exists()
    with alone(tmp_path / "digest"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mask", [0o002, 0o027, 0o077])
def test_a_published_folder_has_the_mode_of_any_folder_there(tmp_path: Path, mask: int):
    tmp_path.chmod(0o2770)  # a group's
    before = os.umask(mask)
    try:
        (tmp_path / "any").mkdir()
        with scratch(tmp_path) as folder:
            publish(folder, tmp_path / "published")
    finally:
        os.umask(before)
    assert (tmp_path / "published").stat().st_mode == (tmp_path / "any").stat().st_mode
    assert list((tmp_path / "published").iterdir()) == []
