"""`flame diff`: params and metrics of two models, from folders, workspaces, projects and MLflow."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import yaml
from typer.testing import CliRunner

from flame_core import cli
from flame_core.digest import file_sha256
from flame_core.errors import InputError
from flame_core.pages.compare import compare
from flame_core.tracking.delivery import deliver
from flame_core.tracking.difference import difference, differing_metrics, differing_params
from flame_core.tracking.journal import Journal
from flame_core.tracking.recorded_run import RecordedModel, recorded_models
from flame_core.tracking.registry import MODEL_TAG
from flame_core.tracking.store import journals, tracking_address
from tests.pages.test_compare import results

METRIC = "retrieval/en/text_to_image/recall@1"
CONTENT = {
    "sources": {"made": {"kind": "folder", "path": "made"}},
    "llm": {"name": "tiny", "source": "path:nowhere"},
    "text": {"layer": 1, "train_kinds": ["raw"], "template": {"raw": {"prefix": "{caption}", "facets": ["x"]}}},
    "recipes": ["plain", "other"],
    "train": {"kinds": ["raw"], "epochs": 3},
}


@pytest.fixture
def measured(tmp_path):
    """Two models measured on the same pictures, the second one worse."""
    made = tmp_path / "measured"
    made.mkdir()
    return [results(made, name, noise, recall_at=[1]) for name, noise in (("plain", 0.2), ("other", 30.0))]


def test_only_params_that_differ_are_shown():
    first = {"train.epochs": "3", "train.seed": "0", "text.layer": "1"}
    second = {"train.epochs": "5", "train.seed": "0", "train.new": "1", "llm.name": "x"}
    assert differing_params(first, second) == [("train.epochs", "3", "5"), ("train.new", "(none)", "1")]


def test_a_headline_metric_has_the_interval_of_the_comparison(measured):
    first, second = measured
    rows = {row[0]: row for row in differing_metrics(first, second, 0.95)}
    row = compare([first, second], 0.95)["recipes"]["other"][METRIC]
    low, high = row["difference_low"], row["difference_high"]
    old, new = first.metrics[METRIC], second.metrics[METRIC]
    assert new < old and high < 0
    assert rows[METRIC][1:] == (f"{old:.4f}", f"{new:.4f}", f"{new - old:+.4f}", f"{low:+.4f} to {high:+.4f}")
    assert not [name for name in rows if name.endswith(("/low", "/high"))]
    assert all(first.metrics[name] != second.metrics[name] for name in rows)


def test_other_pictures_give_a_difference_without_an_interval(measured):
    first, second = measured
    found = difference(
        {"a": RecordedModel({}, first)}, {"b": RecordedModel({}, replace(second, split="0" * 8))}, everything=True
    )
    assert {row[4] for row in found.metrics} == {""}
    assert "measured on other pictures" in found.notes[0]


def test_many_recipes_are_paired_by_name(measured):
    first, second = measured
    old = {"plain": RecordedModel({"train.epochs": "3", "text.layer": "1"}, first), "gone": RecordedModel({}, None)}
    new = {"plain": RecordedModel({"train.epochs": "5", "text.layer": "2"}, second), "new": RecordedModel({}, None)}
    found = difference(old, new)
    assert found.params == [("train.plain.epochs", "3", "5"), ("text.layer", "1", "2")]
    assert all(row[0].startswith("plain: ") for row in found.metrics) and found.others > 0
    assert found.alone == ["gone", "new"]
    assert difference(old, {"plain": new["plain"]}).alone == []  # one model is compared with its like
    with pytest.raises(InputError, match="no recipe in common"):
        difference(old, {"x": RecordedModel({}, None), "y": RecordedModel({}, None)})


@pytest.fixture
def project(tracked, measured):
    """A project with two measured models, and a workspace with more epochs."""
    root = tracked.root
    workspace = root / ".flame" / "runs" / "0123456789ab"
    for folder, epochs in ((root, 3), (workspace, 5)):
        (folder / "recipes").mkdir(parents=True, exist_ok=True)
        content = {**CONTENT, "train": {**CONTENT["train"], "epochs": epochs}}
        (folder / "params.yaml").write_text(yaml.safe_dump(content))
        (folder / "dvc.yaml").write_text("stages: {}\n")
        for found in measured:
            (folder / "recipes" / f"{found.recipe}.yaml").write_text("{}\n")
            model = folder / "data" / "models" / found.recipe
            model.mkdir(parents=True)
            (model / "model.safetensors").write_bytes(f"{found.recipe} {epochs}".encode())
            (model / "config.json").write_text(json.dumps({"recipe": {"epochs": epochs, "kinds": ["raw"]}}))
            shutil.copytree(root / "measured" / found.recipe, folder / "data" / "reports" / found.recipe)
    return tracked


def test_a_workspace_and_the_project(project):
    found = difference(recorded_models(project, "0123456789ab"), recorded_models(project, str(project.root)))
    assert found.params == [("train.plain.epochs", "5", "3"), ("train.other.epochs", "5", "3")]
    assert found.metrics == [] and found.others == 0


def test_a_model_whose_project_has_other_params_now_keeps_its_own(project):
    config = project.model("plain") / "config.json"
    config.write_text(json.dumps({"recipe": {"epochs": 9}}))
    assert recorded_models(project, "data/models/plain")["plain"].params == {"train.epochs": "9"}
    whole = recorded_models(project, "data/models/other")["other"].params
    assert whole["train.epochs"] == "3" and whole["llm.name"] == "tiny"


def test_a_run_of_mlflow_and_a_folder(project, measured):
    address = tracking_address(project)
    assert address
    journal = Journal(journals(project) / "key")
    files = {f"report/{path.name}": path for path in project.report("plain").iterdir()}
    journal.append(
        {"kind": "start", "time": 1, "name": "plain", "tags": {"flame.recipe": "plain"}},
        {"kind": "params", "params": {"train.epochs": "7", "llm.name": "tiny"}},
        {"kind": "artifacts", "files": {name: journal.keep(path) for name, path in files.items()}},
        {"kind": "tags", "tags": {MODEL_TAG: file_sha256(project.model("plain") / "model.safetensors")}},
        {"kind": "end", "status": "FINISHED", "time": 2},
    )
    deliver(journal, address)
    run = str(journal.delivered(address).run_id)
    (recorded,) = recorded_models(project, run).values()
    assert recorded.params == {"train.epochs": "7", "llm.name": "tiny"}
    assert recorded.results and recorded.results.metrics == measured[0].metrics
    assert recorded_models(project, f"runs:/{run}").keys() == {"plain"}


def test_an_unknown_name_says_what_there_is(project):
    with pytest.raises(InputError, match=r"'nothing' is no run, model or workspace: write models:/flame@champion"):
        recorded_models(project, "nothing")


def test_the_command_shows_tables_and_has_an_exit_code(project, monkeypatch):
    monkeypatch.chdir(project.root / "data")
    done = CliRunner().invoke(cli.app, ["diff", "models/plain", "data/models/other"], env={"COLUMNS": "200"})
    assert done.exit_code == 1
    assert METRIC in done.stdout and "other metrics differ; --all shows them" in done.stdout
    done = CliRunner().invoke(cli.app, ["diff", "models/plain", "models/plain"])
    assert done.exit_code == 0 and "no difference" in done.stdout
