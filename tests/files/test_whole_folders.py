"""A scratch folder that cannot be made ends in an error, not in an endless wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.files.whole_folders import scratch, scratch_below


@pytest.mark.parametrize("make", [scratch, scratch_below])
def test_the_parent_leads_to_a_disk_that_is_not_mounted(tmp_path: Path, make):
    (tmp_path / "state").symlink_to(tmp_path / "not-mounted/state")
    with pytest.raises(FileNotFoundError), make(tmp_path / "state/work"):
        pass


def test_the_parent_takes_no_folders():
    with pytest.raises(FileNotFoundError), scratch(Path("/proc")):
        pass
