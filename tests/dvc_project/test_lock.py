"""dvc.lock: versions of code and data, a torn file, and the order of its entries."""

from __future__ import annotations

import re
import threading
import time

from flame_core.dvc_project.lock import sort_lock
from flame_core.dvc_project.project import DvcProject
from tests.foreign_project import dvc, edit


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
    assert set(locked) == set(stages) == {"grow", "scale@10", "scale@2", "total"}


def test_its_order_is_that_of_a_whole_run_whatever_ran_first(reproduced: DvcProject) -> None:
    path = reproduced.root / "dvc.lock"
    whole = path.read_bytes()
    head, *stages = re.split(r"(?m)^(?=  \S)", path.read_text())
    path.write_text(head + "".join(reversed(stages)))
    assert path.read_bytes() != whole
    sort_lock(reproduced.root)
    assert path.read_bytes() == whole
