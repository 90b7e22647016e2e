"""The definitions of this project: they load, lightly and completely, and the graph is the one on record.

After an intended change of the graph: `python -m tests.orchestration.test_definitions` writes `graph.json` anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from flame_core.dvc_project.project import DvcProject
from flame_core.layout import Layout
from flame_core.workspace import environment
from orchestration.project_definitions import build
from tests.foreign_project import edit
from tests.orchestration.test_experiment import layout as layout  # the fixture: FLAME's params, two cheap stages

ROOT = Path(__file__).parents[2]
GRAPH = Path(__file__).with_name("graph.json")
HEAVY = ["torch", "transformers", "mlflow", "timm", "matplotlib", "safetensors", "pyarrow"]


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build(Layout.find(ROOT))


def describe(definitions: dg.Definitions) -> dict[str, Any]:
    graph = definitions.resolve_asset_graph()
    return {
        key.to_user_string(): {
            "group": node.group_name,
            "kinds": sorted(node.kinds),
            "owners": sorted(node.owners),
            "pools": sorted(node.pools or ()),
            "after": sorted(parent.to_user_string() for parent in node.parent_keys),
            "checks": sorted(check.name for check in node.check_keys),
            "freshness": node.freshness_policy is not None,
        }
        for key in graph.toposorted_asset_keys
        for node in [graph.get(key)]
    }


def test_dagster_accepts_all_of_it(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)
    assert {job.name for job in definitions.resolve_all_job_defs()} >= {"pretrain", "retrain", "experiment"}


def test_the_graph_is_the_one_on_record(definitions: dg.Definitions) -> None:
    assert describe(definitions) == json.loads(GRAPH.read_text())


def test_every_stage_is_described(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for name, stage in DvcProject(ROOT).stages().items():
        node = graph.get(dg.AssetKey([name.replace("@", ".")]))
        assert stage.description and node.description and stage.description in node.description
        assert stage.command in node.description


def test_selections_are_parsed_and_resolved(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    selected = dg.AssetSelection.from_string('1+key:"train.flame" or group:evaluation').resolve(graph)
    assert {key.to_user_string() for key in selected} == {
        "ingest", "caption", "embed", "train.flame", "evaluate.flame", "baselines", "compare"
    }  # fmt: skip


def test_retrain_starts_at_the_training(definitions: dg.Definitions) -> None:
    job = definitions.resolve_job_def("retrain")
    keys = {key.to_user_string() for key in job.asset_layer.selected_asset_keys}
    assert keys == {"train.flame", "evaluate.flame", "compare", "promote"}


def test_schedules_are_off_and_know_their_time_zone(definitions: dg.Definitions) -> None:
    for schedule in definitions.schedules or ():
        assert isinstance(schedule, dg.ScheduleDefinition)
        assert schedule.execution_timezone == "UTC"
        assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("params.yaml", "epochs: 40", "epochs: many", "train.epochs: "),
        ("params.yaml", "names: []", "names: [mine/gone.yaml]", "mine/gone.yaml does not exist"),
        ("versions.yaml", "ingest: ", "ingest: 9", "ingest 9"),
    ],
)
def test_a_run_whose_later_stage_could_only_fail_is_refused_before_the_first(
    layout: Layout, instance: dg.DagsterInstance, file: str, old: str, new: str, said: str
) -> None:
    edit(layout.root / file, old, new)
    job = build(layout).resolve_job_def("pretrain")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    (failed,) = result.get_step_failure_events()
    assert failed.step_key == "train__flame"
    failure = failed.step_failure_data.user_failure_data
    assert failure is not None and said in str(failure.description)
    assert not (layout.root / "data").exists()


def test_loading_imports_nothing_heavy() -> None:
    code = (
        "import sys, orchestration.definitions as d; d.defs.resolve_asset_graph(); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_dg_check_defs_passes(tmp_path: Path) -> None:
    variables = {**environment(), "DAGSTER_HOME": str(tmp_path)}
    done = subprocess.run(["dg", "check", "defs"], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    GRAPH.write_text(json.dumps(describe(build(Layout.find(ROOT))), indent=1) + "\n")
