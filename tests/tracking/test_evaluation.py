"""What the record of an evaluation says of benchmarks, delivered to MLflow's embedded store."""

from __future__ import annotations

from flame_core.evaluation.definition import Benchmark
from flame_core.evaluation.standing import LanguageRow, Standings
from flame_core.tracking.delivery import deliver
from flame_core.tracking.evaluation import benchmark_dataset, benchmark_metrics
from flame_core.tracking.journal import Journal
from flame_core.tracking.store import journals, open_client, tracking_address
from tests.tracking.conftest import end, start


def test_benchmarks_arrive_as_inputs_and_as_metrics_by_language(tracked):
    benchmark = Benchmark.model_validate({
        "name": "streets", "title": "Streets", "task": {"kind": "retrieval"}, "languages": ["en", "de"],
        "data": {"layout": "captions_jsonl", "path": "streets", "obtain": "make it"},
    })  # fmt: skip
    values = {"en": 0.5, "de": float("nan"), "mean": 0.4}
    rows = [LanguageRow(code, {"text_retrieval_recall@1": value}, {}, {}, {}) for code, value in values.items()]
    standing = Standings(benchmark, "measured", rows=rows, digest="a" * 64)
    journal, address = Journal(journals(tracked) / "abc"), tracking_address(tracked)
    assert address
    inputs = {"kind": "inputs", "context": "evaluation", "datasets": [benchmark_dataset(standing)]}
    journal.append(start(), inputs, {**benchmark_metrics(standing), "of_model": False}, end())
    deliver(journal, address)
    run = open_client(address).get_run(journal.delivered(address).run_id)
    assert run.data.metrics == {
        "benchmark/streets/en/text_retrieval_recall_at_1": 0.5,
        "benchmark/streets/mean/text_retrieval_recall_at_1": 0.4,
    }
    [read] = run.inputs.dataset_inputs
    assert (read.dataset.name, read.dataset.digest) == ("streets", "a" * 36)
    assert read.dataset.profile == '{"languages": ["en", "de"]}'
