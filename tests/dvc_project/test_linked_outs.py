"""Outs on another disk, in a git repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from flame_core.dvc_project.project import DvcProject
from flame_core.dvc_project.stage_processes import COMMAND, PLAIN


@pytest.mark.parametrize("linked", ["data", "data/models"])
def test_a_folder_of_outs_may_be_a_link_out_of_the_repository(linked: str, tmp_path: Path):
    root, disk = tmp_path / "project", tmp_path / "disk"
    disk.mkdir()
    place = root / linked
    place.parent.mkdir(parents=True)
    place.symlink_to(disk)
    stage = {"cmd": "mkdir -p data/models && echo 1 > data/models/made", "outs": ["data/models/made"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"make": stage}}))
    for command in (["git", "init", "--quiet"], [*PLAIN, "init", "--quiet"], [*COMMAND, "repro"]):
        subprocess.run(command, cwd=root, check=True, timeout=120)
    assert place.is_symlink() and (root / "data/models/made").read_text() == "1\n"
    assert DvcProject(root).all_changes() == {}
    (root / "data/models/made").unlink()
    subprocess.run([*COMMAND, "repro"], cwd=root, check=True, timeout=120)  # from the cache
    assert (root / "data/models/made").read_text() == "1\n"
