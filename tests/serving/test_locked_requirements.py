"""The hashes that travel with a served model are those of the lock: all that its packages need, and no more."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
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


def test_every_import_of_a_served_model_is_pinned_as_locked_with_hashes():
    text = locked_requirements(REQUIREMENTS, LOCK)
    assert text
    entries = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    requirements = [Requirement(entry.partition("\\")[0]) for entry in entries]
    pinned = {each.name: str(each.specifier) for each in requirements if not each.marker or each.marker.evaluate()}
    assert {name: pinned[name] for name in REQUIREMENTS} == {
        name: f"=={importlib.metadata.version(name)}" for name in REQUIREMENTS
    }
    assert all("--hash=sha256:" in entry for entry in entries)
    assert locked_requirements(reversed(REQUIREMENTS), LOCK) == text


def test_what_packages_need_in_turn_is_taken_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installed packages of this test's own: extras that are asked for, whatever the platform; no others."""
    for name, requires in {
        "Made_Up.app": ["made-up-lib[fast]>=1", 'made-up-windows; sys_platform == "win32"', "made-up-unlocked"],
        "made-up-lib": ['made-up-quick; extra == "fast"', 'made-up-docs; extra == "docs"', "made-up-app"],
        "made-up-quick": [],
        "made-up-docs": [],
    }.items():
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        lines = "".join(f"Requires-Dist: {line}\n" for line in requires)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{lines}")
    monkeypatch.syspath_prepend(tmp_path)
    lock = tmp_path / "requirements.lock"
    names = ("made-up-app", "made-up-docs", "made-up-lib", "made-up-quick", "made-up-windows", "unrelated")
    lock.write_text("# a comment\n" + "".join(f"{name}==1.0 \\\n    --hash=sha256:0{name}\n" for name in names))
    text = locked_requirements(["made_up.APP"], lock)
    assert text
    assert [line.split("==")[0] for line in text.splitlines() if "==" in line] == [
        "made-up-app",
        "made-up-lib",
        "made-up-quick",
        "made-up-windows",
    ]
    lock.write_text(lock.read_text().replace("made-up-quick==1.0", "made-up-quick==1.1"))
    assert locked_requirements(["made_up.APP"], lock) is None  # another version than the one that is installed


def test_versions_for_other_pythons_are_kept_beside_the_one_that_is_installed(tmp_path: Path):
    version = importlib.metadata.version("pyyaml")
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        f'pyyaml=={version} ; python_full_version < "3.12" \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n'
        'pyyaml==99.0 ; python_full_version >= "3.12" \\\n    --hash=sha256:cc\n'
        "zipp==3.0 \\\n    --hash=sha256:dd\n"
    )
    text = locked_requirements(["PyYAML"], lock)
    assert text == lock.read_text().partition("zipp")[0]
