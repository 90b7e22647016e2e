"""Reading a DVC project: the stages as DVC resolves them, what dvc.lock records, what changed, and broken files."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from orchestration.dvc_project import DvcBusyError, DvcProject, DvcProjectError
from tests.orchestration.conftest import dvc, edit

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


def test_code_version_is_the_same_from_the_file_and_from_the_lock(reproduced: DvcProject) -> None:
    stages, locked = reproduced.stages(), reproduced.locked()
    assert {name: entry.code_version for name, entry in locked.items()} == {
        name: stage.code_version for name, stage in stages.items()
    }
    edit(reproduced.root / "params.yaml", "count: 4", "count: 5")
    changed = {name for name, stage in reproduced.stages().items() if stage.code_version != locked[name].code_version}
    assert changed == {"grow"}  # a param alone changes it; what only reads its outs stays


def test_data_version_follows_the_outs(reproduced: DvcProject) -> None:
    before = reproduced.locked()
    edit(reproduced.root / "dvc.yaml", "{print s}", "{print s + 0}")  # another command, the same bytes
    edit(reproduced.root / "params.yaml", "[2, 10]", "[2, 11]")
    dvc(reproduced.root, "repro", "--quiet")
    after = {name: entry.data_version for name, entry in reproduced.locked().items()}
    assert after["grow"] == before["grow"].data_version
    assert after["scale@2"] == before["scale@2"].data_version
    assert after["total"] != before["total"].data_version
    edit(reproduced.root / "params.yaml", "[2, 11]", "[2, 10]")
    (reproduced.root / "scaled" / "11.txt").unlink()
    dvc(reproduced.root, "repro", "--quiet", "total")
    assert reproduced.locked()["total"].data_version == before["total"].data_version


def test_changes_name_the_dirty_ancestors(reproduced: DvcProject) -> None:
    assert reproduced.changes("total") == {}
    edit(reproduced.root / "params.yaml", "count: 4", "count: 5")
    assert reproduced.changes("total") == {"grow": ["params.yaml: count modified"]}
    (reproduced.root / "scaled" / "2.txt").write_text("broken\n")
    assert set(reproduced.changes("total")) == {"grow", "scale@2", "total"}


def test_unknown_stage_is_named_with_those_there_are(foreign: DvcProject) -> None:
    with pytest.raises(DvcProjectError, match=r"no stage 'nope'.*it has: grow, scale@10, scale@2, total"):
        foreign.changes("nope")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("outs: [total.txt]", "outs: [total.txt", r"dvc\.yaml:2\d: .*expected ',' or '\]'"),
        ("deps: [scaled]", "depz: [scaled]", r"dvc\.yaml:2\d: stages\.total\.depz: extra keys not allowed"),
        ("${item.by}.txt'", "${item.buy}.txt'", r"dvc\.yaml:2\d: .*Could not find 'item\.buy'"),
        ("outs: [total.txt]", "outs: [numbers]", r"dvc\.yaml: .*output 'numbers' is specified in"),
        ("params: [count]", "params: [counter]", r"params\.yaml does not hold counter, which stage grow"),
    ],
)
def test_a_broken_file_is_named_with_its_line(foreign: DvcProject, old: str, new: str, message: str) -> None:
    edit(foreign.root / "dvc.yaml", old, new)
    with pytest.raises(DvcProjectError, match=message):
        foreign.stages()


def test_a_torn_lock_file_is_read_again(reproduced: DvcProject) -> None:
    path = reproduced.root / "dvc.lock"
    whole = path.read_text()
    path.write_text(whole[: whole.index("outs:") + 9])  # as a reader sees it while DVC writes

    def complete() -> None:
        time.sleep(0.3)
        path.write_text(whole)

    writer = threading.Thread(target=complete)
    writer.start()
    locked = reproduced.locked()
    stages = reproduced.stages()
    writer.join()
    assert set(locked) == set(stages) == {"grow", *FACTORS, "total"}


def test_who_holds_the_lock_is_said(reproduced: DvcProject) -> None:
    hold = (
        "import sys, time; from dvc.repo import Repo\n"
        "with Repo('.').lock: print('held', flush=True); sys.stdin.readline()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold], cwd=reproduced.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(DvcBusyError, match=rf"held by process {holder.pid} "):
            reproduced.locked()
    finally:
        holder.communicate("\n")
    assert reproduced.locked()
