"""A student and its teacher in the real pipeline: DVC, Dagster, workspaces and lineage see the same edge."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import yaml

from flame_core.digest import file_sha256
from flame_core.layout import Layout
from flame_core.params import changed_values, read_yaml
from flame_core.settings import settings
from flame_core.stages import embed
from flame_core.tracking.chain import VERIFIED
from flame_core.tracking.lineage import trace
from flame_core.tracking.runs import find_record
from flame_core.tracking.store import local_address
from flame_core.workspace import dvc, environment, open_workspace, resolve_params
from orchestration.dagster_dvc.assets import asset_key
from orchestration.materialize import QUIET
from orchestration.project_definitions import build
from tests.stages.pipeline import captioned_project
from tests.training.world import recipe

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
CHAIN = ["train@plain", "link-student", "train@student"]


@dataclass
class Graph:
    """A project whose `dvc.yaml` holds the real stage `train`, on shards and embeddings that are there."""

    layout: Layout
    variables: dict[str, str]

    def command(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            arguments, cwd=self.layout.root, env=self.variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output = done.stdout.decode()
        assert done.returncode == code, output
        return output

    def flame(self, *arguments: str, code: int = 0) -> str:
        return self.command(str(Path(sys.executable).parent / "flame"), *arguments, code=code)

    def repro(self, target: str = "train@student") -> list[str]:
        """Stages that ran."""
        return re.findall(r"Running stage '(.*?)'", self.command(*dvc(), "repro", target))

    def set(self, file: str, **values: object) -> None:
        path = self.layout.root / file
        path.write_text(yaml.safe_dump({**read_yaml(path), **values}, sort_keys=False))

    def weights(self, name: str) -> str:
        return file_sha256(self.layout.model(name) / "model.safetensors")


@pytest.fixture(scope="module")
def graph(tmp_path_factory, byte_tokenizer) -> Iterator[Graph]:
    root = tmp_path_factory.mktemp("edges")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment(), "FLAME_DEVICE": "cpu", "PYTHONPATH": str(ROOT)}.items():
            patch.setenv(name, value)
        params, layout = captioned_project(root, byte_tokenizer, 24)
        evaluate = params.evaluate.model_copy(update={"languages": []})
        params = params.model_copy(update={"evaluate": evaluate})
        embed.run(params, layout)
        content = changed_values(params)
        (root / "params.yaml").write_text(yaml.safe_dump({**content, "recipes": ["plain", "student"], "train": {}}))
        plain = changed_values(recipe(gates={"max_loss_ratio": 100.0}, epochs=1))
        (root / "recipes/linked").mkdir(parents=True)
        (root / "recipes/plain.yaml").write_text(yaml.safe_dump(plain))
        student = {**plain, "seed": 5, "teacher": {"recipe": "plain"}}
        (root / "recipes/linked/student.yaml").write_text(yaml.safe_dump(student))
        (root / "dvc.yaml").write_text(
            yaml.safe_dump({"stages": {"train": read_yaml(ROOT / "dvc.yaml")["stages"]["train"]}}, sort_keys=False)
        )
        shutil.copy(ROOT / ".dvcignore", root)
        shutil.copy(ROOT / "versions.yaml", root / "versions.yaml")
        subprocess.run([*dvc(), "init", "--no-scm", "--quiet"], cwd=root, check=True)
        variables = {**os.environ, "FLAME_LOG_LEVEL": "ERROR"}
        made = Graph(layout, {**variables, "FLAME_TRACKING_URI": local_address(layout)})
        for command in (["params", "check"], ["train", "student"], ["run"]):
            said = made.flame(*command, code=2)
            assert "Write under `stages:`" in said
        with (root / "dvc.yaml").open("a") as pipeline:
            pipeline.write(said.split("\n\n", 1)[1])
        made.flame("params", "check")
        yield made


@pytest.fixture(scope="module")
def first(graph: Graph) -> str:
    """The student's weights after plain `dvc repro train@student`."""
    assert graph.repro() == CHAIN
    return graph.weights("student")


def test_dvc_trains_the_teacher_first_and_a_student_again_only_if_its_teacher_changed(graph: Graph, first: str):
    config = json.loads((graph.layout.model("student") / "config.json").read_text())
    assert config["data"]["teacher"]["model.safetensors"] == graph.weights("plain")
    assert graph.repro() == []
    graph.set("recipes/plain.yaml", epochs=1)  # as it was, written in another way
    assert graph.repro() == []
    graph.set("recipes/plain.yaml", seed=1)
    assert graph.repro() == CHAIN
    second = json.loads((graph.layout.model("student") / "config.json").read_text())["data"]["teacher"]
    assert second["model.safetensors"] == graph.weights("plain") != config["data"]["teacher"]["model.safetensors"]
    graph.set("recipes/linked/student.yaml", seed=6)
    assert graph.repro() == CHAIN[1:]
    graph.set("recipes/plain.yaml", seed=0)
    graph.set("recipes/linked/student.yaml", seed=5)
    graph.repro()  # all from DVC's cache of runs
    assert graph.weights("student") == first
    drawn = graph.command(*dvc(), "dag", "--dot", "train@student")
    assert '"train@plain" -> "link-student"' in drawn and '"link-student" -> "train@student"' in drawn


def test_a_damaged_teacher_is_made_anew_and_the_student_stays(graph: Graph, first: str):
    weights = graph.layout.model("plain") / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()  # it may be a link into DVC's cache
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    graph.repro()
    assert weights.read_bytes() == content
    assert graph.weights("student") == first


def test_dagster_retrains_a_student_after_its_teacher_and_leaves_the_same_lock(graph: Graph, first: str):
    root = graph.layout.root
    lock = (root / "dvc.lock").read_bytes()
    keys = [asset_key(name) for name in CHAIN]
    with dg.DagsterInstance.ephemeral() as instance, pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        job = build(graph.layout).resolve_job_def("retrain")

        def run() -> dict[str, str]:
            done = job.execute_in_process(instance=instance, run_config=QUIET, asset_selection=keys)
            assert done.success
            return {
                event.asset_key.to_user_string(): str(event.materialization.metadata["outcome"].value)
                for event in done.get_asset_materialization_events()
            }

        assert len(set(run().values())) == 1  # nothing to do
        assert (root / "dvc.lock").read_bytes() == lock
        graph.set("recipes/plain.yaml", seed=2)
        assert run().keys() == {key.to_user_string() for key in keys}
        trained = graph.weights("student")
        dagsters = (root / "dvc.lock").read_bytes()
        assert graph.repro() == []
        assert (root / "dvc.lock").read_bytes() == dagsters != lock
    graph.set("recipes/plain.yaml", seed=0)
    graph.repro()
    assert graph.weights("student") == first
    assert trained == first  # this loss does not read the teacher


def test_a_workspace_has_the_edge_too(graph: Graph, first: str):
    made = open_workspace(graph.layout, resolve_params(graph.layout, ["train.seed=3"], None))
    made.data.mkdir(exist_ok=True)  # some outs of the project are there already
    for name in ("shards", "captions", "embeddings"):  # which no stage of this project makes
        (made.data / name).symlink_to(graph.layout.data / name)
    graph.flame("run", "--set", "train.seed=3", "train@student")
    recorded = read_yaml(made.recipes / "student.yaml")["linked"]["teacher"]["model.safetensors"]
    assert recorded == file_sha256(made.model("plain") / "model.safetensors") != graph.weights("plain")
    assert graph.weights("student") == first


def test_lineage_names_the_teacher_by_its_weights(graph: Graph, first: str):
    graph.set("recipes/linked/student.yaml", seed=9)  # weights that were made with one teacher only
    graph.repro()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_TRACKING_URI", local_address(graph.layout))
        settings.cache_clear()
        chain = trace(graph.layout, "data/models/student")
        (teacher,) = (link for link in chain.links if link.name == "teacher")
        assert teacher.facts["model.safetensors sha256"] == graph.weights("plain")
        assert (teacher.status, teacher.facts["path"], teacher.facts["found in"]) == (
            VERIFIED,
            "data/models/plain",
            "tree",
        )
        tags = [find_record(graph.layout, f"data/models/{name}").tags for name in ("plain", "student")]
        assert [each.get("flame.teacher") for each in tags] == [None, graph.weights("plain")]
