"""How Dagster's steps run stages here."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg

from flame_core.dvc_project.project import DvcProject
from flame_core.layout import Layout
from orchestration.dagster_dvc.assets import EXIT_CODE, dvc_assets
from orchestration.resources import PARAMS_TAG, read_tags, runner
from tests.foreign_project import edit
from tests.orchestration.test_experiment import layout as layout  # the fixture: FLAME's params, two cheap stages

# A limit of a file's size is refused as a full disk is (EFBIG); the stage itself lifts it.
LIMITED = ("sh", "-c", 'ulimit -S -f 2000 && exec "$@"', "sh")
STAGE = "ulimit -S -f unlimited && mkdir out && head -c 2000000 /dev/zero > out/file"


def test_a_disk_that_is_full_below_the_cache_is_named_and_keeps_no_part_of_a_file(
    foreign: DvcProject, instance: dg.DagsterInstance
) -> None:
    (foreign.root / "dvc.yaml").write_text(f"stages:\n  make:\n    cmd: {STAGE}\n    outs: [out]\n")
    here = runner()
    asked = dvc_assets(foreign, runner=replace(here, dvc=(*LIMITED, *here.dvc)))
    result = dg.materialize(asked, instance=instance, raise_on_error=False)
    error = result.failure_data_for_node("make")
    assert error is not None and error.user_failure_data is not None
    said = error.user_failure_data
    assert "/.dvc/cache/files/md5" in str(said.description), said.description
    assert "File too large. Free some room and run the same command again" in str(said.description)
    assert said.metadata[EXIT_CODE].value == 5
    assert not list((foreign.root / ".dvc/cache").rglob("*.tmp"))


def test_params_that_cannot_be_read_have_no_tag(layout: Layout) -> None:
    project = DvcProject(layout.root)
    assert PARAMS_TAG in read_tags(project)
    edit(layout.params, "epochs: 40", "epochs: many")
    assert PARAMS_TAG not in read_tags(project)
