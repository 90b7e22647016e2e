"""Outs that a remote has are pulled, not computed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flame_core.dvc_project.absent import NotPulledError, absent_outs, require_pulled
from flame_core.dvc_project.project import DvcProject
from tests.foreign_project import dvc, edit


@pytest.fixture
def clone(reproduced: DvcProject, tmp_path: Path) -> Path:
    """The project after `dvc push`, as a clone has it."""
    root = reproduced.root
    dvc(root, "remote", "add", "--default", "store", str(tmp_path / "remote"))
    dvc(root, "push", "--quiet", "grow", "total")
    for name in ("numbers", "scaled", ".dvc/cache"):
        shutil.rmtree(root / name)
    (root / "total.txt").unlink()
    return root


def test_what_the_remote_has_is_to_be_pulled(clone: Path):
    assert set(absent_outs(clone)) == {"numbers", "scaled/10.txt", "scaled/2.txt", "total.txt"}
    with pytest.raises(NotPulledError, match=r"'store' has it: run `dvc pull numbers total.txt` first"):
        require_pulled(clone)
    with pytest.raises(NotPulledError, match=r"`dvc pull numbers` first"):
        require_pulled(clone, ["scale"])


def test_after_the_pull_the_rest_is_computed(clone: Path):
    dvc(clone, "pull", "--quiet", "numbers", "total.txt")
    require_pulled(clone)
    assert set(absent_outs(clone)) == {"scaled/10.txt", "scaled/2.txt"}


def test_what_params_have_changed_is_computed_with_what_follows_it(clone: Path):
    edit(clone / "params.yaml", "count: 4", "count: 5")
    assert absent_outs(clone) == {}
    require_pulled(clone)


def test_a_remote_that_does_not_answer_is_named(clone: Path, tmp_path: Path):
    (tmp_path / "remote").rename(tmp_path / "elsewhere")
    with pytest.raises(
        NotPulledError, match=r"'store' does not say whether it has them .*remote is not there; is it m"
    ):
        require_pulled(clone)
    told: list[str] = []
    require_pulled(clone, warn=told.append)  # on a machine without a network
    assert len(told) == 1 and "They are computed anew now" in told[0]
    dvc(clone, "remote", "remove", "store")
    require_pulled(clone)


def test_a_workspace_waits_for_no_pull_that_brings_another_state(clone: Path, tmp_path: Path):
    project = tmp_path / "other"
    shutil.copytree(clone, project)
    with pytest.raises(NotPulledError, match=rf"run `dvc pull numbers total.txt` in {project} first"):
        require_pulled(clone, project=project)
    lock = (project / "dvc.lock").read_text()
    md5 = next(line.split()[1] for line in lock.splitlines() if line.endswith(".dir"))
    (project / "dvc.lock").write_text(lock.replace(md5, "0" * 32 + ".dir"))
    with pytest.raises(NotPulledError, match=rf"run `dvc pull total.txt` in {project} first"):
        require_pulled(clone, project=project)


def test_whole_outs_are_only_counted(reproduced: DvcProject, monkeypatch: pytest.MonkeyPatch):
    def no_listing(*_: object) -> None:
        raise AssertionError("read, of millions of files, before every run")

    monkeypatch.setattr("dvc.output.Output.get_obj", no_listing)
    assert absent_outs(reproduced.root) == {}


def test_an_out_of_which_a_part_was_pulled(clone: Path):
    dvc(clone, "pull", "--quiet", "numbers")
    (clone / "numbers/enough").unlink()
    assert "numbers" not in absent_outs(clone)  # the cache has it
    shutil.rmtree(clone / ".dvc/cache")
    dvc(clone, "pull", "--quiet", "numbers/all.txt")
    (clone / "numbers/enough").unlink(missing_ok=True)
    assert "numbers" in absent_outs(clone)
    (clone / "numbers/all.txt").chmod(0o644)
    (clone / "numbers/all.txt").write_text("changed")
    assert "numbers" not in absent_outs(clone)
