"""Results on benchmarks as events of a journal: our own beside a model's other scores, other people's as runs.

A score is `benchmarks/<benchmark>/<language>/<metric>`, with `/low` and `/high` of its interval, and its chance level
is `benchmarks/<benchmark>/<language>/chance/<metric>` (`metric_names.py` has their names in MLflow); each is linked to
the model and to the data by digest. The held-out split is not included: its scores are those of `metrics.json`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from flame_core.digest import file_sha256, value_digest
from flame_core.layout import Layout
from flame_core.measuring.results import METRICS, read_results
from flame_core.params import Params
from flame_core.suite.benchmark_results import (
    BenchmarkResult,
    headline_metrics,
    measured_baselines,
    read_benchmark_results,
)
from flame_core.suite.definition import Benchmark
from flame_core.suite.held_out_benchmarks import RETRIEVAL
from flame_core.suite.score import MEAN
from flame_core.tracking import provenance
from flame_core.tracking.inputs import EVALUATION
from flame_core.tracking.journal import KEY_TAG, Journal
from flame_core.tracking.metric_names import named
from flame_core.tracking.run import KEY_LENGTH, shipping, show_links
from flame_core.tracking.steps import now
from flame_core.tracking.store import journals, tracking_address

BASELINE_TAG, SOURCE_TAG = "flame.baseline", "flame.baseline_source"
_DIGEST_LENGTH = 36  # MLflow's limit


def track_baselines(params: Params, layout: Layout) -> None:
    """Record the models of `evaluate.baselines`, after their results are written: one run and external model each.

    Equal results are recorded once; if tracking is off, nothing is recorded.
    """
    address = tracking_address(layout)
    if address is None:
        return
    found = []
    for name, source in measured_baselines(params, layout).items():
        found.append(journal := baseline_journal(layout, name, source))
        if not any(event["kind"] == "end" for event, _ in journal.events()):
            journal.append(*_baseline_events(journal, params, layout, name, source))
    if not any(journal.pending(address) for journal in found):
        return
    with shipping(found[-1], address):  # the shipper also delivers the other journals in the folder
        pass
    for journal in found:
        show_links(journal, address)


def baseline_journal(layout: Layout, name: str, source: str) -> Journal:
    """The journal of a measured baseline, identified by its results."""
    digests = {file: file_sha256(path) for file, path in _files(layout.baselines / name).items()}
    described = {"baseline": name, "source": source, "files": digests}
    return Journal(journals(layout) / value_digest(described)[:KEY_LENGTH])


def _baseline_events(journal: Journal, params: Params, layout: Layout, name: str, source: str) -> list[dict[str, Any]]:
    folder = layout.baselines / name
    files = _files(folder)
    tags = {BASELINE_TAG: name, SOURCE_TAG: source}
    about = {**provenance.tags(params, layout), **provenance.dagster_tags()}
    events: list[dict[str, Any]] = [
        {"kind": "start", "time": now(), "name": f"baseline-{name}", "tags": {**about, **tags}},
        {"kind": "external", "name": name, "tags": {**tags, KEY_TAG: journal.key}},
        {"kind": "artifacts", "files": {f"baseline/{file}": journal.keep(path) for file, path in files.items()}},
    ]
    benchmark_results = read_benchmark_results(folder)
    if METRICS in files:  # it has texts
        results = read_results(folder)
        events += held_out_events(results.metrics, results.headline, results.split, results.pictures, benchmark_results)
    events += benchmark_events(benchmark_results)
    return [*events, {"kind": "end", "status": "FINISHED", "time": now()}]


def _files(folder: Path) -> dict[str, Path]:
    """{relative name: path} of all files below a folder."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def held_out_events(
    metrics: Mapping[str, float],
    headline: Collection[str],
    split: str,
    pictures: int,
    benchmark_results: Sequence[BenchmarkResult],
) -> list[dict[str, Any]]:
    """The events of the scores on the held-out split with this digest."""
    languages = [row.language for each in benchmark_results if each.benchmark.name == RETRIEVAL for row in each.rows]
    dataset = {
        "name": RETRIEVAL,
        "digest": split[:_DIGEST_LENGTH],
        "source_type": "local",
        "source": json.dumps({"path": "data/shards", "split": "val", "pictures": pictures}),
        "profile": json.dumps({"languages": languages}),
    }
    chance = [f"{task}/chance/{measure}" for task, *_, measure in (name.split("/") for name in headline)]
    return _measured([dataset], [(named(metrics, dict.fromkeys([*headline, *chance])), dataset)])


def benchmark_events(benchmark_results: Sequence[BenchmarkResult]) -> list[dict[str, Any]]:
    """The events of the scores on every measured benchmark; [] if there are none."""
    described = [
        (named(benchmark_metrics([each]), benchmark_headline(each.benchmark)), _dataset(each))
        for each in recorded(benchmark_results)
    ]
    return _measured([dataset for _, dataset in described], described)


def benchmark_metrics(benchmark_results: Sequence[BenchmarkResult]) -> dict[str, float]:
    """{name of a score: value} of every measured benchmark."""
    found = {}
    for each in recorded(benchmark_results):
        for row in each.rows:
            place = f"benchmarks/{each.benchmark.name}/{row.language}"
            found |= {f"{place}/{name}": value for name, value in row.metrics.items()}
            for name, (low, high) in row.intervals.items():
                found |= {f"{place}/{name}/low": low, f"{place}/{name}/high": high}
            found |= {f"{place}/chance/{name}": value for name, value in row.chance.items()}
    return found


def benchmark_headline(benchmark: Benchmark) -> list[str]:
    """The metrics by which models are compared on a benchmark: means over its languages if it has several."""
    language = MEAN if len(benchmark.languages) > 1 else benchmark.languages[0]
    return [f"benchmarks/{benchmark.name}/{language}/{metric}" for metric in headline_metrics(benchmark)]


def recorded(benchmark_results: Sequence[BenchmarkResult]) -> list[BenchmarkResult]:
    """The standings of measured benchmarks, without the held-out split."""
    return [
        each for each in benchmark_results if each.status == "measured" and each.benchmark.data.layout != "held_out"
    ]


def _dataset(each: BenchmarkResult) -> dict[str, Any]:
    """A benchmark's data as fields of MLflow's dataset entity."""
    profile: dict[str, Any] = {"languages": [row.language for row in each.rows], "skipped": each.skipped}
    return {
        "name": each.benchmark.name,
        "digest": each.digest[:_DIGEST_LENGTH],
        "source_type": "local",
        "source": json.dumps(each.benchmark.data.model_dump(mode="json"), sort_keys=True, ensure_ascii=False),
        "profile": json.dumps(profile, sort_keys=True, ensure_ascii=False),
    }


def _measured(
    datasets: Sequence[dict[str, Any]], scores: Sequence[tuple[Mapping[str, float], dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The events of datasets and of the scores on each, linked to the model."""
    if not datasets:
        return []
    return [
        {"kind": "inputs", "context": EVALUATION, "datasets": list(datasets)},
        *(
            {
                "kind": "metrics",
                "time": now(),
                "step": 0,
                "values": dict(values),
                "of_model": True,
                "dataset": {"name": dataset["name"], "digest": dataset["digest"]},
            }
            for values, dataset in scores
        ),
    ]
