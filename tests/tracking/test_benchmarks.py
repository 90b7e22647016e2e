"""Results on benchmarks in MLflow, tied to their data: our model's in its training's run, a baseline's in its own."""

# ruff: noqa: F811  (fixtures of another file)
from __future__ import annotations

import json

import pytest

from flame_core.digest import file_sha256, write_json
from flame_core.measuring.retrieval import DIRECTIONS
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.stages import baselines, evaluate
from flame_core.suite.benchmark_results import BenchmarkResult, read_benchmark_results
from flame_core.tracking import provenance
from flame_core.tracking.benchmarks import BASELINE_TAG, SOURCE_TAG, benchmark_metrics
from flame_core.tracking.journal import Journal
from flame_core.tracking.metric_names import whole_name
from flame_core.tracking.store import journals, open_client, tracking_address
from flame_core.verification import write_digests
from tests.stages.test_benchmarks import on_cpu, run, words  # noqa: F401
from tests.stages.test_benchmarks import project as all_benchmarks  # noqa: F401
from tests.tracking.conftest import end, start


@pytest.fixture
def project(all_benchmarks):
    """Four benchmarks, one of them without data, and a CLIP as a baseline."""
    params, layout = all_benchmarks
    names = [f"sets/{name}.yaml" for name in ("many", "sugar", "colours3", "away")]
    benchmarks = params.evaluate.benchmarks.model_copy(update={"names": names})
    return params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"benchmarks": benchmarks})}), layout


@pytest.fixture
def client(tracked):
    address = tracking_address(tracked)
    assert address
    return open_client(address)


def scores(client, model) -> dict[str, tuple[float, str, str]]:
    """{metric: (value, dataset, digest)} of a logged model."""
    found = client.get_logged_model(model.model_id).metrics or []
    return {metric.key: (metric.value, metric.dataset_name, metric.dataset_digest) for metric in found}


def expected(results: list[BenchmarkResult]) -> dict[str, tuple[float, str, str]]:
    return {
        whole_name(name): (value, each.benchmark.name, each.digest[:36])
        for each in results
        if each.digest
        for name, value in benchmark_metrics([each]).items()
    }


@pytest.fixture
def evaluated(project, words, client, tracked, monkeypatch):
    """A model whose training was tracked, after its evaluation at another commit."""
    monkeypatch.setattr(provenance, "git_state", lambda project: {"git.commit": "e" * 40, "git.clean": "false"})
    params, layout = project
    config = layout.model("plain") / CONFIG
    write_json(config, {**json.loads(config.read_text()), "samples": 3})
    write_digests(layout.model("plain"))
    journal = Journal(journals(layout) / "abc")
    journal.append(start(**{"git.commit": "c" * 40, "git.clean": "true"}), end())
    journal.remember_model(file_sha256(layout.model("plain") / WEIGHTS))
    evaluate.run(params, layout, "plain")
    return params, layout


def test_a_model_s_results_are_tied_to_it_and_to_each_benchmark_s_data(evaluated, client):
    _, layout = evaluated
    results = read_benchmark_results(layout.report("plain"))
    wanted = expected(results)
    assert {
        "whole_report/benchmarks.many.mean.text_retrieval_recall_at_1",
        "whole_report/benchmarks.colours3.en.acc1.low",
        "whole_report/benchmarks.colours3.en.chance.acc1",
    } <= wanted.keys()
    experiment = client.get_experiment_by_name("flame").experiment_id
    [model] = client.search_logged_models([experiment])
    found = scores(client, model)
    assert {name: found[name] for name in wanted} == wanted
    assert {
        name for name in found if name.startswith("whole_report/benchmarks.")
    } == wanted.keys()  # the held-out split is not twice
    assert found["whole_report/retrieval.en.image_to_text.recall_at_10"][1] == "held-out"
    shown = {name.removeprefix("headline/") for name in found if name.startswith("headline/")}
    assert shown == {
        *(
            f"retrieval.{language}.{direction}.recall_at_10"
            for language in ("en", "other_languages")
            for direction in DIRECTIONS
        ),
        "retrieval.chance.recall_at_10",
        "classification.top1",
        "classification.chance.top1",
        *(f"benchmarks.many.mean.{direction}_retrieval_recall_at_1" for direction in ("text", "image")),
        "benchmarks.sugar.en.text_acc",
        "benchmarks.colours3.en.acc1",
    }
    assert {name.partition("/")[0] for name in found} == {"headline", "whole_report"}
    [run_found] = client.search_runs([experiment])
    assert (
        wanted.items()
        <= {
            name: (value, *wanted[name][1:]) for name, value in run_found.data.metrics.items() if name in wanted
        }.items()
    )
    assert provenance.recorded_state(run_found.data.tags) == {"git.commit": "e" * 40, "git.clean": "false"}
    assert run_found.data.tags["git.commit"] == "c" * 40  # what trained it
    read = {each.dataset.name: each for each in run_found.inputs.dataset_inputs}
    measured = [each for each in results if each.digest]
    assert {each.benchmark.name for each in measured} <= read.keys() and "away" not in read
    assert json.loads(read["many"].dataset.source)["path"] == "many"
    assert [tag.value for tag in read["many"].tags] == ["evaluation"]


def test_a_baseline_is_a_run_and_an_external_model_recorded_once(project, words, client, tracked):
    params, layout = project
    baselines.run(params, layout)
    baselines.run(params, layout)
    experiment = client.get_experiment_by_name("flame").experiment_id
    [run_found] = client.search_runs([experiment])
    assert run_found.data.tags[BASELINE_TAG] == "CLIP"
    assert run_found.data.tags[SOURCE_TAG] == params.evaluate.baselines["CLIP"]
    assert (run_found.info.run_name, run_found.info.status) == ("baseline-CLIP", "FINISHED")
    [model] = client.search_logged_models([experiment])
    assert (model.name, model.source_run_id) == ("CLIP", run_found.info.run_id)
    assert model.tags["mlflow.model.isExternal"] == "true"
    found, wanted = scores(client, model), expected(read_benchmark_results(layout.baselines / "CLIP"))
    assert wanted and {name: found[name] for name in wanted} == wanted
    recorded = json.loads((layout.baselines / "CLIP/metrics.json").read_text())
    name = "retrieval/de/text_to_image/recall@5"
    assert found[whole_name(name)][:2] == (recorded[name], "held-out")
    assert "baseline" in {file.path for file in client.list_artifacts(run_found.info.run_id)}


@pytest.mark.slow
def test_other_results_of_a_baseline_are_another_run_and_without_tracking_there_is_none(
    project,
    words,
    client,
    tracked,
    monkeypatch,
):
    from flame_core.settings import settings

    params, layout = project
    baselines.run(params, layout)
    changed = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"confidence": 0.9})})
    baselines.run(changed, layout)
    experiment = client.get_experiment_by_name("flame").experiment_id
    assert len(client.search_runs([experiment])) == 2
    monkeypatch.setenv("FLAME_TRACKING_URI", "off")
    settings.cache_clear()
    baselines.run(params.model_copy(update={"promote": params.promote}), layout)
    assert len(Journal.all(layout.state / "tracking")) == 2
