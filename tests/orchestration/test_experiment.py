"""The job `experiment`: other params, validated first, run beside the main line and never taken for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster import Enum

from flame_core import gates
from flame_core.dvc_project.project import DvcProject, Stage
from flame_core.gates import Check
from flame_core.graph.links import linked_pipeline
from flame_core.layout import Layout
from flame_core.params import load_params, merge, read_yaml
from orchestration.experiment import _new_edges
from orchestration.project_definitions import build
from tests.foreign_project import edit

ROOT = Path(__file__).parents[2]
DVC_YAML = """\
stages:
  train:
    matrix: {recipe: "${recipes}"}
    desc: Train.
    cmd: mkdir -p data/models && echo ${train.epochs} > data/models/${item.recipe}
    params: [train.epochs]
    outs: ['data/models/${item.recipe}']
  compare:
    cmd: cat data/models/* > data/comparison && echo done
    deps: [data/models]
    outs: [data/comparison]
"""


@pytest.fixture
def layout(foreign: DvcProject) -> Layout:
    """A project with FLAME's params and two cheap stages."""
    root = foreign.root
    shutil.copy(ROOT / ".dvcignore", root / ".dvcignore")
    content = merge(read_yaml(ROOT / "params.yaml"), {"recipes": ["flame"], "train": {"epochs": 40}})
    (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    shutil.copytree(ROOT / "recipes", root / "recipes")
    shutil.copy(ROOT / "versions.yaml", root / "versions.yaml")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "presets").mkdir()
    (root / "presets" / "long.yaml").write_text((root / "params.yaml").read_text().replace("epochs: 40", "epochs: 90"))
    return Layout.find(root)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def run(layout: Layout, instance: dg.DagsterInstance, **config) -> dg.ExecuteInProcessResult:
    job = build(layout).resolve_job_def("experiment")
    return job.execute_in_process(
        instance=instance, raise_on_error=False, run_config={"ops": {"workspace": {"config": config}}}
    )


def test_overrides_run_beside_the_main_line(layout: Layout, instance: dg.DagsterInstance) -> None:
    result = run(layout, instance, overrides={"train.epochs": 5})
    assert result.success
    run_tags = instance.get_run_by_id(result.run_id).tags
    workspace = layout.state / "runs" / run_tags["workspace"]
    assert (workspace / "data/comparison").read_text() == "5\n"
    assert json.loads(run_tags["overrides"]) == {"train.epochs": 5}
    assert run_tags["params_digest"] == run_tags["workspace"] == workspace.name
    keys = {dg.AssetKey(["experiments", name]) for name in ("train.flame", "compare")}
    assert set(instance.all_asset_keys()) == keys  # nothing of the main line
    for key in keys:
        event = instance.get_latest_materialization_event(key)
        assert event.asset_materialization.tags["workspace"] == workspace.name
        assert event.asset_materialization.metadata["overrides"].value == '{"train.epochs": 5}'
        assert instance.get_materialized_partitions(key) == {workspace.name}
    assert not (layout.root / "data").exists()
    assert not (layout.root / "dvc.lock").exists()


def test_a_preset_is_a_whole_params_file(layout: Layout, instance: dg.DagsterInstance) -> None:
    result = run(layout, instance, preset="long", overrides={"train.seed": 3})
    assert result.success
    workspace = layout.state / "runs" / instance.get_run_by_id(result.run_id).tags["workspace"]
    assert (workspace / "data/models/flame").read_text() == "90\n"
    assert "seed: 3" in (workspace / "params.yaml").read_text()


def test_auto_is_a_value_like_any_other_until_a_stage_chooses(layout: Layout, instance: dg.DagsterInstance) -> None:
    result = run(layout, instance, overrides={"train.epochs": "auto", "ingest.val_fraction": "auto"})
    assert result.success
    workspace = layout.state / "runs" / instance.get_run_by_id(result.run_id).tags["workspace"]
    assert (workspace / "data/models/flame").read_text() == "auto\n"  # what DVC gives to the stage
    params = load_params(Layout.find(workspace))
    assert params.train["flame"].automatic == ["epochs"] and params.ingest.automatic == ["val_fraction"]
    assert params.digest == workspace.name


def test_the_launchpad_proposes_the_presets(layout: Layout, instance: dg.DagsterInstance) -> None:
    workspace = build(layout).resolve_job_def("experiment").get_node_named("workspace").definition
    field = workspace.config_schema.as_field().config_type.fields["preset"]
    enums = [each for each in (field.config_type, *field.config_type.type_params) if isinstance(each, Enum)]
    (names,) = [[value.config_value for value in each.enum_values] for each in enums]
    assert {"long", "flickr8k"} <= set(names) and names == sorted(names)
    with pytest.raises(dg.DagsterInvalidConfigError, match="longer"):
        run(layout, instance, preset="longer")


CHECKED = """\
    meta: {dagster: {checks: [enough, even]}}
"""


def test_an_experiment_s_checks_are_of_its_own_partition_and_can_be_evaluated_again(
    layout: Layout, instance: dg.DagsterInstance
) -> None:
    made = [Check("enough", False, "there is enough", 1, 2, blocking=False), Check("even", True, "it is even", 2)]
    (layout.root / "checks.json").write_bytes(gates.to_bytes(made))
    old = "cat data/models/* > data/comparison && echo done"
    edit(layout.root / "dvc.yaml", old, "mkdir -p data/comparison && cp ${config.checks} data/comparison/checks.json")
    edit(layout.root / "dvc.yaml", "${config.checks}", str(layout.root / "checks.json"))
    edit(layout.root / "dvc.yaml", "    outs: [data/comparison]\n", f"    outs: [data/comparison]\n{CHECKED}")
    done = run(layout, instance, overrides={"train.epochs": 5})
    assert done.success  # the check does not block
    key = dg.AssetKey(["experiments", "compare"])
    check = dg.AssetCheckKey(key, "enough")
    workspace = instance.get_run_by_id(done.run_id).tags["workspace"]

    def evaluations(name: str = "enough") -> list[tuple[str | None, str]]:
        found = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(key, name), limit=9)
        return [(each.partition, each.status.value) for each in found]

    assert evaluations() == [(workspace, "FAILED")]
    definitions = build(layout)
    graph = definitions.resolve_asset_graph()
    assert check in graph.get(key).check_keys and not graph.get(key).is_executable
    again = dg.define_asset_job("again", dg.AssetSelection.checks(check))
    job = dg.Definitions.merge(definitions, dg.Definitions(jobs=[again])).resolve_job_def("again")
    assert job.execute_in_process(instance=instance, tags={"dagster/partition": workspace}).success
    assert evaluations() == [(workspace, "FAILED")] * 2
    assert evaluations("even") == [(workspace, "SUCCEEDED")]  # it was not selected
    everything = definitions.resolve_job_def("__ASSET_JOB")  # "Materialize all" by the API, which selects nothing
    assert everything.execute_in_process(instance=instance, raise_on_error=False).success
    assert [each for each in evaluations() if each[1] != "PLANNED"] == [(workspace, "FAILED")] * 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"overrides": {"train.epoch": 5}}, "epoch: unknown key; did you mean 'epochs'?"),
        ({"overrides": {"train.epochs": "many"}}, "train.epochs: "),
        ({"preset_path": "longer"}, "preset 'longer' does not exist (known presets: cc3m-vitb16, "),
        ({}, "give a preset or overrides"),
        ({"overrides": {"evaluate.benchmarks.names": ["mine/gone.yaml"]}}, "mine/gone.yaml does not exist"),
    ],
)
def test_wrong_params_stop_it_before_any_stage(
    layout: Layout, instance: dg.DagsterInstance, config: dict, message: str
) -> None:
    result = run(layout, instance, **config)
    assert not result.success
    (failed,) = result.get_step_failure_events()
    assert failed.step_key == "workspace"
    assert message in failed.step_failure_data.user_failure_data.description
    assert not (layout.state / "runs").exists()


CAPTIONER = {"captioner": "rewrite", "model": "hub:evil/model@1", "trust_remote_code": True, "prompt": "{caption}"}
CODE_OVERRIDES = [
    ({"llm.source": "hub:evil/model@1", "llm.sha256": None}, "llm.source"),
    (
        {"llm": {"source": "hub:evil/model@1", "sha256": None, "trust_remote_code": True}},
        "llm.source, llm.trust_remote_code",
    ),
    ({"caption.short": CAPTIONER}, "caption.short.model, caption.short.trust_remote_code"),
    ({"evaluate": {"baselines": {"theirs": "transformers:evil/model"}}}, "evaluate.baselines"),
    ({"train.model.backbone": "hf-hub:evil/model"}, "train.model.backbone"),
    (
        {"train": {"model": {"backbone_options": {"checkpoint_path": "x.pth"}}}},
        "train.model.backbone_options.checkpoin",
    ),
]


@pytest.mark.parametrize(("overrides", "keys"), CODE_OVERRIDES)
def test_a_web_page_may_not_set_what_fetches_models_or_runs_code(
    layout: Layout, instance: dg.DagsterInstance, overrides: dict, keys: str
) -> None:
    result = run(layout, instance, overrides=overrides)
    (failed,) = result.get_step_failure_events()
    said = failed.step_failure_data.user_failure_data.description
    assert said.startswith(f"{keys}") and "FLAME_CODE_OVERRIDES" in said
    assert not (layout.state / "runs").exists()


def test_nor_through_a_preset_from_elsewhere(layout: Layout, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    content = merge(read_yaml(layout.params), {"llm": {"source": "hub:evil/model@1", "sha256": None}})
    (tmp_path / "evil.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))
    for preset in (str(tmp_path / "evil.yaml"), "../evil.yaml"):
        (failed,) = run(layout, instance, preset_path=preset).get_step_failure_events()
        assert failed.step_failure_data.user_failure_data.description.startswith("llm.source: ")
    shutil.copy(tmp_path / "evil.yaml", layout.root / "presets/own.yaml")  # the project's own words
    assert run(layout, instance, preset="own", overrides={"train.epochs": 3}).success


def test_a_tag_names_no_folder_outside_the_workspaces(layout: Layout, instance: dg.DagsterInstance) -> None:
    job = build(layout).resolve_job_def("experiment")
    done = job.execute_in_process(
        instance=instance, raise_on_error=False, op_selection=["workspace_train__flame"], tags={"workspace": "../.."}
    )
    (failed,) = done.get_step_failure_events()
    assert failed.step_failure_data.user_failure_data.description.startswith("no workspace is open")
    assert not (layout.root / "data").exists()


def test_a_setting_and_the_shell_allow_it(layout: Layout, instance: dg.DagsterInstance) -> None:
    job = build(layout, code_overrides=True).resolve_job_def("experiment")
    config = {"overrides": {"llm.source": "hub:own/model@1", "llm.sha256": None}}
    done = job.execute_in_process(instance=instance, run_config={"ops": {"workspace": {"config": config}}})
    assert done.success


def test_stages_that_the_definitions_lack_are_named(layout: Layout, instance: dg.DagsterInstance) -> None:
    shutil.copy(layout.recipes / "flame.yaml", layout.recipes / "other.yaml")
    result = run(layout, instance, overrides={"recipes": ["flame", "other"]})
    (failed,) = result.get_step_failure_events()
    assert "train@other" in failed.step_failure_data.user_failure_data.description


def test_a_failing_stage_fails_the_run(layout: Layout, instance: dg.DagsterInstance) -> None:
    edit(layout.root / "dvc.yaml", "echo done", "echo no room for key-9 && exit 3")
    result = run(layout, instance, overrides={"train.epochs": 5})
    (failed,) = result.get_step_failure_events()
    assert failed.step_key == "workspace_compare"
    assert "no room for key-9" in failed.step_failure_data.user_failure_data.description


def test_the_order_of_other_teachers_is_that_of_the_definitions_or_refused(layout: Layout) -> None:
    pipeline = layout.root / "dvc.yaml"
    edit(pipeline, "[train.epochs]", "[train.epochs, {'recipes/${item.recipe}.yaml': null}]")
    (layout.recipes / "linked").mkdir(exist_ok=True)
    content = read_yaml(layout.params)
    layout.params.write_text(yaml.safe_dump({**content, "recipes": ["flame", "small", "student"]}))

    def stages(teacher: str) -> dict[str, Stage]:
        for name, learns_from in (("small", "flame"), ("student", teacher)):
            (layout.recipes / f"linked/{name}.yaml").write_text(f"teacher: {{recipe: {learns_from}}}\n")
        pipeline.write_bytes(linked_pipeline(pipeline.read_bytes(), layout, load_params(layout)))
        return DvcProject(layout.root).stages()

    of_flame, of_small = stages("flame"), stages("small")
    assert _new_edges(of_flame, of_small) == [("link-student", "train@small")]
    assert _new_edges(of_small, of_flame) == []  # `train@flame` comes before it all the same, through `small`
