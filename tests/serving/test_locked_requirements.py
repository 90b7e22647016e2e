from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

from flame_core.serving.locked_requirements import locked_requirements
from flame_core.tracking.registry import REQUIREMENTS

LOCK = Path(__file__).parents[2] / "requirements.lock"


def test_installers_that_check_hashes_find_all_they_ask_for(tmp_path: Path):
    text = locked_requirements(REQUIREMENTS, LOCK)
    assert text
    (tmp_path / "requirements.lock").write_text(text)
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--require-hashes"]
    done = subprocess.run([*command, "-r", tmp_path / "requirements.lock"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in text.splitlines() if not line.startswith(" ")]
    names = {Requirement(line.rstrip(" \\")).name for line in lines}
    assert set(REQUIREMENTS) <= names
    assert not names & {"dagster", "dvc", "pytest", "gguf"}
    assert set(text.splitlines()) <= set(LOCK.read_text().splitlines())


def test_a_lock_of_other_versions_or_none_is_not_used(tmp_path: Path):
    lock = tmp_path / "requirements.lock"
    assert locked_requirements(["pyyaml"], lock) is None
    lock.write_text("pyyaml==0.1 \\\n    --hash=sha256:00\n")
    assert locked_requirements(["pyyaml"], lock) is None
