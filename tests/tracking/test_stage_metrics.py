"""What concept_fit, tune and select know of a model, in the MLflow run of its training."""

# ruff: noqa: F811  (fixtures of other files)
from __future__ import annotations

import json
from pathlib import Path

import pytest

from flame_core.digest import file_sha256, write_json
from flame_core.layout import Layout
from flame_core.model_files import WEIGHTS
from flame_core.settings import settings
from flame_core.stages import concept_fit, tune
from flame_core.tracking.address import sqlite_address
from flame_core.tracking.journal import Journal
from flame_core.tracking.run import TrainingRun, track_training
from flame_core.tracking.steps import StepRecorder
from flame_core.tracking.store import journals, local_store, open_client
from tests.stages.pipeline import folder_source, pipeline_params
from tests.stages.test_concept_fit import fitting
from tests.stages.test_concept_fit import world as counted  # noqa: F401
from tests.stages.test_tune import world as tuned  # noqa: F401
from tests.tracking.conftest import end, start


@pytest.fixture
def store(tracked: Layout, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty store, which projects of other folders use as well."""
    address = sqlite_address(local_store(tracked) / "mlflow.db")
    monkeypatch.setenv("FLAME_TRACKING_URI", address)
    settings.cache_clear()
    return address


def trained(layout: Layout, recipe: str, key: str) -> Journal:
    """The journal of a finished training that made the recipe's model."""
    weights = layout.model(recipe) / WEIGHTS
    if not weights.is_file():
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.write_bytes(recipe.encode())
    journal = Journal(journals(layout) / key)
    journal.append(start(key), end())
    journal.remember_model(file_sha256(weights))
    return journal


def history(address: str, metric: str) -> list[tuple[int, float]]:
    """[(step, value)] of a metric in the one run of the store."""
    client = open_client(address)
    (run,) = client.search_runs([client.get_experiment_by_name(settings().experiment).experiment_id])
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]


def names(address: str) -> set[str]:
    client = open_client(address)
    (run,) = client.search_runs([client.get_experiment_by_name(settings().experiment).experiment_id])
    return set(run.data.metrics)


def test_a_fit_is_in_the_run_of_its_model_once(counted, store):
    params, layout = counted
    trained(layout, "small", "fit")
    concept_fit.run(fitting(params, retrieval=True), layout)
    concept_fit.run(fitting(params, retrieval=True), layout)
    found = json.loads((layout.concept_fit / "fit.json").read_text())["recipes"]["small"]["retrieval"]
    defined = {
        f"freq/{name}/retrieval": found[key]
        for name, key in {"r_concept": "r", "slope_decade": "slope", "ci_lo": "slope_low"}.items()
        if found[key] is not None
    }
    assert found["points"] and {name for name in names(store) if name.startswith("freq/")} >= defined.keys()
    for name, value in defined.items():
        assert history(store, name) == [(0, value)]
    assert not any(name.startswith("misalign/") for name in names(store))  # no pictures were tagged


def test_terms_of_heads_are_metrics_by_epoch(tuned, store):
    params, layout = tuned
    trained(layout, "small", "heads")
    tune.run(params, layout)
    record = json.loads((layout.heads / "heads.json").read_text())["models"]["small"]["presets"]
    assert {name for name in names(store) if name.startswith("nm/")} == {
        *(f"nm/{number}/{preset}" for number in ("ce", "within", "beyond") for preset in record),
        *(f"nm/{term}_w/{preset}" for term in ("mse", "cov", "svd") for preset in ("mlp", "paper", "code")),
    }
    epochs = params.tune.epochs
    by_epoch = history(store, "nm/cov_w/code")
    assert [step for step, _ in by_epoch] == list(range(epochs)) and all(value > 0 for _, value in by_epoch)
    assert history(store, "nm/mse_w/mlp") == [(step, 0.0) for step in range(epochs)]
    last = history(store, "nm/ce/lp")[-1]
    assert last == (epochs - 1, record["lp"]["terms"]["last_epoch"]["ce"])
    within = record["lp"]["accuracy"]["test"]["mean"]
    assert history(store, "nm/within/lp") == [(epochs - 1, pytest.approx(within, abs=1e-5))]


def test_a_training_on_a_selection_says_what_it_is(tracked, tmp_path):
    folder = tracked.selections
    folder.mkdir(parents=True)
    (folder / "quarter.parquet").write_bytes(b"keys")
    row = {"samples": 16, "share": 0.25, "perplexity": 9.5, "gini": 0.125, "clusters": 4}
    write_json(folder / "selections.json", {"selections": {"all": {}, "quarter": row}})
    params = pipeline_params({"made": folder_source(tracked.root)})
    (name,) = params.recipes
    recipe = params.train[name].model_copy(update={"selection": "data/selections/quarter.parquet"})
    params = params.model_copy(update={"train": {name: recipe}})
    weights = tmp_path / WEIGHTS
    weights.write_bytes(b"weights")
    with track_training(params, tracked, name, recipe, "abc") as run:
        assert run.journal is not None
        StepRecorder(Journal(run.journal)).record({"step": 0, "loss": 1.0})  # not taken as recorded
        run.trained([{"step": 0, "loss": 1.0}], weights)
    address = sqlite_address(local_store(tracked) / "mlflow.db")
    for metric, value in {"ratio": 0.25, "n": 16.0, "perplexity": 9.5, "gini": 0.125}.items():
        assert history(address, f"sel/{metric}") == [(0, value)]
    assert history(address, "train/loss") == [(0, 1.0)]


def test_a_selection_from_elsewhere_and_a_damaged_record_of_one_say_nothing(tracked: Layout, tmp_path: Path, caplog):
    params = pipeline_params({"made": folder_source(tracked.root)})
    (name,) = params.recipes
    own = tmp_path / "own" / "keys.parquet"
    own.parent.mkdir()
    own.write_bytes(b"keys")
    recipe = params.train[name].model_copy(update={"selection": str(own)})
    params = params.model_copy(update={"train": {name: recipe}})

    def recorded(key: str) -> bool:
        journal = Journal(journals(tracked) / key)
        TrainingRun(journal).open(params, tracked, name, recipe)
        return any(event["kind"] == "metrics" for event, _ in journal.events())

    assert not recorded("plain") and "not recorded: the selection" not in caplog.text
    (own.parent / "selections.json").write_text("{")
    assert not recorded("damaged") and "not recorded: the selection" in caplog.text
