"""The project in which a model is made again: its recipes and their links are those of the run."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
import yaml

from flame_core.errors import InputError, Interrupted
from flame_core.files.whole_folders import alone
from flame_core.graph.links import require_links
from flame_core.layout import Layout
from flame_core.params import load_params, merge, read_yaml
from flame_core.tracking.delivery import deliver
from flame_core.tracking.journal import Journal
from flame_core.tracking.provenance import git_state
from flame_core.tracking.reproduce import _clear, _code, _dvc, _recipes, _require_commit, _variables, reproduce
from flame_core.tracking.store import journals
from tests.tracking.conftest import start

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Layout:
    """A commit's files, with a recipe that DVC links there and not in the run below."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    (tmp_path / "recipes/linked").mkdir(exist_ok=True)
    (tmp_path / "recipes/linked/student.yaml").write_text("teacher: {recipe: flame}\n")
    (tmp_path / "recipes/student.yaml").write_text("linked: {}\n")  # as a link made it
    (tmp_path / "kept").mkdir()
    return Layout.find(tmp_path)


def root_of(project: Layout, over: dict) -> Path:
    """The folder of a run with other params, as far as `reproduce` has made it before the recipes come."""
    root = project.state / "reproduce/1"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / "params.yaml").write_text(yaml.safe_dump(merge(read_yaml(ROOT / "params.yaml"), over)))
    shutil.copy(ROOT / "dvc.yaml", root / "dvc.yaml")
    return root


def test_recipes_are_linked_as_the_runs_params_want_it(project: Layout) -> None:
    over = {"recipes": ["flame", "student"], "train": {"selection": "kept/keys.parquet"}}
    root = root_of(project, over)
    _recipes(project, project.project, root)
    here = Layout.find(root)
    require_links(here, load_params(here))
    shipped = {path.stem for path in (ROOT / "recipes/linked").glob("*.yaml")}
    assert {path.stem for path in (here.recipes / "linked").iterdir()} == {"flame", "student"} | shipped
    assert not (here.recipes / "flame.yaml").exists() and not (here.recipes / "student.yaml").exists()
    assert (root / "kept/keys.parquet").readlink() == project.project / "kept/keys.parquet"


def test_params_of_an_older_code_are_taken_as_they_stand(project: Layout) -> None:
    root = root_of(project, {"once": "a key"})
    _recipes(project, project.project, root)
    assert (root / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()
    assert (root / "recipes/linked/student.yaml").is_file()


def test_code_that_only_the_callers_path_has_is_found_behind_that_of_the_run(tmp_path: Path, monkeypatch) -> None:
    ran = [sys.executable, "-c", "import mine, os; print(mine.__file__)"]
    for name in ("run", "caller"):
        (tmp_path / name).mkdir()
    (tmp_path / "caller/mine.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "caller"))
    for folder in ("caller", "run"):
        found = subprocess.run(ran, env=_variables(tmp_path / "run"), capture_output=True, text=True, check=True)
        assert found.stdout.strip() == str(tmp_path / folder / "mine.py")
        (tmp_path / "run/mine.py").touch()
    monkeypatch.delenv("PYTHONPATH")
    assert _variables(tmp_path)["PYTHONPATH"] == str(tmp_path)


def test_a_commit_that_is_not_here_is_named_with_what_brings_it(project: Layout, tmp_path: Path) -> None:
    record = SimpleNamespace(tags={"git.commit": "0123456789" * 4})
    with pytest.raises(InputError, match=r"commit (0123456789){4} of the run.*git fetch --unshallow"):
        _require_commit(project, cast(Any, record))


@pytest.mark.parametrize("tag", ["git.commit", "evaluated.git.commit"])
def test_a_tag_that_is_no_commit_is_named(project: Layout, tag: str) -> None:
    record = SimpleNamespace(tags={"git.commit": "0123456789" * 4, tag: "main; rm"})
    with pytest.raises(InputError, match=f"the run's tag {tag} is 'main; rm', which is not a commit"):
        _require_commit(project, cast(Any, record))


def test_the_definitions_are_those_of_the_last_evaluation_as_the_params_and_the_lock_are(project: Layout) -> None:
    place = project.project

    def commit(recipe: str) -> str:
        (place / "recipes" / f"{recipe}.yaml").write_text("kinds: [raw]\n")
        identity = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        for command in (("add", "recipes", "dvc.yaml"), (*identity, "commit", "-qm", recipe)):
            subprocess.run(["git", *command], cwd=place, check=True)
        return git_state(place)["git.commit"]

    subprocess.run(["git", "init", "-q"], cwd=place, check=True)
    shutil.copy(ROOT / "dvc.yaml", place)
    trained, evaluated, _ = commit("first"), commit("mine"), commit("later")
    root = root_of(project, {"recipes": ["flame", "mine"]})
    record = SimpleNamespace(
        tags={"git.commit": trained, "evaluated.git.commit": evaluated, "evaluated.git.clean": "true"}
    )
    code = _code(project, cast(Any, record), root)
    assert (code / "recipes/mine.yaml").is_file() and not (code / "recipes/later.yaml").exists()
    assert (root / "recipes/mine.yaml").is_file()
    record.tags = {"git.commit": trained}  # as earlier versions recorded it
    assert not (_code(project, cast(Any, record), root_of(project, {})) / "recipes/mine.yaml").exists()


@pytest.mark.parametrize("lacks", ["params.yaml", "report/metrics.json", "commit"])
def test_an_earlier_reproduction_is_kept_if_the_run_cannot_be_made_again(tracked, address, lacks: str) -> None:
    files = {"dvc.lock": "stages: {}\n", "params.yaml": "a: 1\n", "report/metrics.json": "{}\n"}
    files.pop(lacks, None)
    journal = Journal(journals(tracked) / "one")
    commit = {"git.commit": "0123456789" * 4} if lacks == "commit" else {}
    journal.append(start("one", **commit))
    for name, content in files.items():
        (tracked.root / "file").write_text(content)
        journal.append({"kind": "artifacts", "files": {name: journal.keep(tracked.root / "file")}})
    deliver(journal, address)
    run = journal.delivered(address).run_id
    earlier = tracked.state / "reproduce" / str(run) / "data"
    earlier.mkdir(parents=True)
    said = {"report/metrics.json": r"report/metrics\.json of the run\. A model that was only trained has none: run"}
    with pytest.raises(InputError, match=said.get(lacks, lacks)):
        reproduce(tracked, f"runs:/{run}")
    assert earlier.is_dir()


def test_a_stop_ends_the_stage_of_a_reproduction_as_well(tmp_path: Path) -> None:
    """SIGTERM reaches `flame reproduce` alone, as from Slurm or docker: its training would go on without it."""
    stage = "import pathlib, time; pathlib.Path('begun').touch(); time.sleep(60)"
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": {"cmd": f'{sys.executable} -c "{stage}"'}}}))

    def stop() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    others = set(psutil.Process().children(recursive=True))
    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        _dvc(tmp_path, dict(os.environ), "repro", "train")
    assert set(psutil.Process().children(recursive=True)) <= others


def test_of_a_reproduction_that_did_not_end_the_work_cache_stays(tmp_path: Path) -> None:
    kept = [tmp_path / ".flame/begun", tmp_path / ".flame/work"]  # killed while it clears, it has not ended either
    names = (".flame/begun", ".flame/work/train/unit", ".flame/gather/x", "data/models/flame/model", "params.yaml")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "linked").symlink_to(kept[1])
    _clear(tmp_path, kept)
    assert {path for path in tmp_path.rglob("*") if not path.is_dir()} == {kept[0], kept[1] / "train/unit"}
    _clear(tmp_path, [])
    assert not tmp_path.exists()


def test_two_of_the_same_model_come_one_after_the_other(tracked, address, caplog, monkeypatch) -> None:
    """The second would remove the project in which the first trains."""
    caplog.set_level(logging.INFO)
    journal = Journal(journals(tracked) / "one")
    journal.append(start("one"))
    for name, content in {"dvc.lock": "stages: {}\n", "params.yaml": "a: 1\n", "report/metrics.json": "{}\n"}.items():
        (tracked.root / "file").write_text(content)
        journal.append({"kind": "artifacts", "files": {name: journal.keep(tracked.root / "file")}})
    deliver(journal, address)
    run, begun = journal.delivered(address).run_id, threading.Event()

    def begin(*_: object) -> None:
        begun.set()
        raise InputError("far enough")

    def second() -> None:
        with pytest.raises(InputError, match="far enough"):
            reproduce(tracked, f"runs:/{run}")

    monkeypatch.setattr("flame_core.tracking.reproduce._project", begin)
    thread = threading.Thread(target=second)
    with alone(tracked.state / "reproduce" / str(run)):
        thread.start()
        while thread.is_alive() and "another process reproduces the same model; waiting for it" not in caplog.text:
            time.sleep(0.01)
        assert not begun.is_set()
    thread.join()
    assert begun.is_set()
