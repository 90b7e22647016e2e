"""A DVC project: the stages as DVC resolves them, and what changed since they last ran."""

from __future__ import annotations

import pytest

from flame_core.dvc_project.errors import DvcProjectError
from flame_core.dvc_project.project import DvcProject
from tests.foreign_project import edit

FACTORS = ["scale@10", "scale@2"]


def test_stages_are_resolved_and_in_order(foreign: DvcProject) -> None:
    stages = foreign.stages()
    assert list(stages) == ["grow", *FACTORS, "total"]
    assert stages["scale@10"].command.endswith("> scaled/10.txt")
    assert stages["scale@10"].outs == ("scaled/10.txt",)
    assert stages["scale@10"].upstream == ("grow",)
    assert stages["total"].upstream == tuple(FACTORS)  # through the folder that holds their outs
    assert stages["grow"].description == "Grow some numbers."
    assert stages["grow"].meta["dagster"]["group"] == "data"


def test_only_the_root_file_counts(foreign: DvcProject) -> None:
    (foreign.root / "other").mkdir()
    (foreign.root / "other" / "dvc.yaml").write_text("stages: {elsewhere: {cmd: 'true'}}\n")
    assert "elsewhere" not in foreign.stages()


def test_changes_name_the_dirty_ancestors(reproduced: DvcProject) -> None:
    assert reproduced.changes("total") == {}
    edit(reproduced.root / "params.yaml", "count: 4", "count: 5")
    assert reproduced.changes("total") == {"grow": ["params.yaml: count 4 → 5"]}
    (reproduced.root / "scaled" / "2.txt").write_text("broken\n")
    assert set(reproduced.changes("total")) == {"grow", "scale@2", "total"}


def test_unknown_stage_is_named_with_those_there_are(foreign: DvcProject) -> None:
    with pytest.raises(DvcProjectError, match=r"no stage 'nope'.*it has: grow, scale@10, scale@2, total"):
        foreign.changes("nope")


def test_the_changes_of_all_stages(reproduced: DvcProject) -> None:
    edit(reproduced.root / "params.yaml", "count: 4", "count: 5")
    (reproduced.root / "scaled" / "2.txt").unlink()
    assert reproduced.all_changes() == {
        "grow": ["params.yaml: count 4 → 5"],
        "scale@2": ["scaled/2.txt deleted (output)"],
        "total": ["scaled modified"],
    }


def test_a_stage_that_never_ran_has_one_reason(foreign: DvcProject) -> None:
    """Not those of DVC: "params.yaml new", and "deleted" for outs that were never there."""
    assert foreign.all_changes() == {name: ["has not run here"] for name in ("grow", *FACTORS, "total")}
    assert foreign.changes("scale@2") == {name: ["has not run here"] for name in ("grow", "scale@2")}
    (foreign.root / "scaled").mkdir()
    (foreign.root / "scaled" / "2.txt").write_text("by hand\n")
    assert foreign.changes("scale@2")["scale@2"] == ["has not run here"]


def test_nothing_changed(reproduced: DvcProject) -> None:
    assert reproduced.all_changes() == {}


def test_a_conflict_in_the_lock_says_what_to_do(reproduced: DvcProject) -> None:
    edit(reproduced.root / "dvc.lock", "stages:", "<<<<<<< ours\nstages:")
    with pytest.raises(DvcProjectError, match=r"dvc.lock, line 2: a merge .*`git checkout --ours dvc.lock`"):
        reproduced.all_changes()
