"""A DVC project that has nothing to do with FLAME: templating, a matrix, a stage that speaks Pipes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flame_core.dvc_project.project import DvcProject
from flame_core.workspace import environment

DVC_YAML = """\
stages:
  grow:
    desc: Grow some numbers.
    cmd: ${python} grow.py
    params: [count]
    outs: [numbers]
    meta:
      dagster:
        group: data
        kinds: [python]
        owners: [someone@example.org]
        pool: field
        retries: {max: 1, delay_seconds: 0.1, exit_codes: [5]}
        checks: [enough]
  scale:
    matrix:
      by: ${factors}
    cmd: mkdir -p scaled && awk '{print $1 * ${item.by}}' numbers/all.txt > scaled/${item.by}.txt
    deps: [numbers]
    outs: ['scaled/${item.by}.txt']
  total:
    cmd: cat scaled/*.txt | awk '{s += $1} END {print s}' > total.txt
    deps: [scaled]
    outs: [total.txt]
"""

GROW = """\
import json, os, pathlib, sys, time
import yaml
from dagster_pipes import open_dagster_pipes

count = yaml.safe_load(open("params.yaml"))["count"]
pathlib.Path("numbers").mkdir(exist_ok=True)
if count < 0:
    print("looking at number-7")
    sys.exit("number-7 is negative; give count a value above 0")
pathlib.Path("numbers/all.txt").write_text("".join(f"{i}\\n" for i in range(count)))
pathlib.Path("numbers/enough").write_text("yes" if count > 2 else "no")
if "DAGSTER_PIPES_CONTEXT" in os.environ:
    with open_dagster_pipes() as pipes:
        pipes.log.info("growing now")
        pipes.report_custom_message({"metadata": {"grown": {"raw_value": count, "type": "int"}}})
"""


@pytest.fixture(scope="session")
def foreign_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("foreign-template")
    dvc(root, "init", "--no-scm", "--quiet")
    dvc(root, "config", "cache.type", "copy")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "params.yaml").write_text(f"count: 4\nfactors: [2, 10]\npython: {sys.executable}\n")
    (root / "grow.py").write_text(GROW)
    return root


@pytest.fixture(scope="session")
def reproduced_template(foreign_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reproduced-template") / "project"
    shutil.copytree(foreign_template, root)
    dvc(root, "repro", "--quiet")
    return root


@pytest.fixture
def foreign(foreign_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DvcProject:
    """A fresh copy of the project, in which nothing has run."""
    return _copy(foreign_template, tmp_path, monkeypatch)


@pytest.fixture
def reproduced(reproduced_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DvcProject:
    """A fresh copy of the project after `dvc repro` from a shell."""
    return _copy(reproduced_template, tmp_path, monkeypatch)


def _copy(template: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> DvcProject:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    shutil.copytree(template, place / "project")
    return DvcProject(place / "project")


def dvc(root: Path, *arguments: str) -> str:
    """Standard output of a `dvc` command in `root`."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
