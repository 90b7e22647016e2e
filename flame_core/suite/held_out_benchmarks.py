"""The project's own held-out split as benchmarks among the others, from metrics that are already measured."""

from __future__ import annotations

from flame_core.measuring.measures import Evaluation
from flame_core.measuring.retrieval import DIRECTIONS
from flame_core.params import EvaluateParams
from flame_core.suite.benchmark_results import BenchmarkResult, LanguageRow
from flame_core.suite.definition import Benchmark
from flame_core.suite.tasks.retrieval import NAMES

RETRIEVAL, CLASSES = "held-out", "held-out-classes"
_CLASS_METRICS = {"acc1": "top1", "acc5": "top5", "mean_per_class_recall": "mean_per_class"}


def held_out_results(evaluation: Evaluation, options: EvaluateParams) -> list[BenchmarkResult]:
    """Retrieval by language, the training language first, and zero-shot classes if the source has any.

    Equal captions count here as one text, which is correct for all its pictures (`measuring.retrieval`).
    """
    m = evaluation.metrics
    rows = []
    for code, result in evaluation.languages.items():
        row = LanguageRow(
            code, {}, {}, {}, {"pictures": len(result.pairing.pictures), "texts": len(result.pairing.texts)}
        )
        for direction in DIRECTIONS:
            prefix = f"retrieval/{code}/{direction}"
            row.facts[f"{NAMES[direction]}_median_rank"] = m[f"{prefix}/median_rank"]
            for k in options.recall_at:
                name = f"{NAMES[direction]}_recall@{k}"
                row.metrics[name] = m[f"{prefix}/recall@{k}"]
                row.intervals[name] = (m[f"{prefix}/recall@{k}/low"], m[f"{prefix}/recall@{k}/high"])
                row.chance[name] = m[f"{prefix}/chance/recall@{k}"]
        rows.append(row)
    task = {"kind": "retrieval", "recall_at": options.recall_at}
    benchmark = _benchmark(RETRIEVAL, "Held-out split", task, [row.language for row in rows])
    missing = evaluation.missing_languages
    found = [BenchmarkResult(benchmark, "measured", rows=rows, missing_languages=missing)]
    if evaluation.classification:
        names = {name: key for name, key in _CLASS_METRICS.items() if f"classification/{key}" in m}
        row = LanguageRow(
            options.train_language,
            {name: m[f"classification/{key}"] for name, key in names.items()},
            {name: (m[f"classification/{key}/low"], m[f"classification/{key}/high"]) for name, key in names.items()},
            {name: m[f"classification/chance/{key}"] for name, key in names.items() if key.startswith("top")},
            {"pictures": m["classification/pictures"], "classes": m["classification/classes"]},
        )
        benchmark = _benchmark(CLASSES, "Held-out split, classes", {"kind": "classification"}, [options.train_language])
        found.append(BenchmarkResult(benchmark, "measured", rows=[row]))
    return found


def held_out_not_offered(options: EvaluateParams, why: str) -> BenchmarkResult:
    """The result for a model without texts, which cannot be measured on the split."""
    benchmark = _benchmark(RETRIEVAL, "Held-out split", {"kind": "retrieval"}, [options.train_language])
    return BenchmarkResult(benchmark, "not offered", why)


def _benchmark(name: str, title: str, task: dict, languages: list[str]) -> Benchmark:
    data = {"layout": "held_out", "path": "data/shards", "obtain": "flame run"}
    whole = Benchmark.model_validate({"name": name, "title": title, "task": task, "data": data})
    return whole.model_copy(update={"languages": languages})  # as named in the data, such as zh_TW or sr@latin
