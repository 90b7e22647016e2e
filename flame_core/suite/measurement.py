"""All configured benchmarks on one model, each language separately; pictures are encoded once for all languages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flame_core.reporting import Bar, progress
from flame_core.suite.benchmark_results import BenchmarkResult, result_of_scores
from flame_core.suite.collection import Collected
from flame_core.suite.encoding import Vectors
from flame_core.suite.models.model import Model, NotOffered
from flame_core.suite.score import Score, over_languages
from flame_core.suite.tasks import TASKS
from flame_core.suite.tasks.task import Asked


def run_benchmarks(
    model: Model, collected: Sequence[Collected], confidence: float, work: Path
) -> list[BenchmarkResult]:
    """Measure a model on each benchmark; `confidence` is the level of intervals, `work` the work cache.

    Raises:
        InputError: a picture cannot be decoded, or a text is not in the store.
    """
    found = []
    total = sum(len(each.benchmark.languages) for each in collected if each.content)
    with progress(f"benchmarks of {model.name}", total, "languages") as bar:
        for each in collected:
            if each.content is None:
                found.append(BenchmarkResult(each.benchmark, "not available", each.why))
            else:
                try:
                    found.append(result_of_scores(each, *_measure(model, each, work, bar), confidence))
                except NotOffered as error:
                    found.append(BenchmarkResult(each.benchmark, "not offered", str(error)))
    return found


def _measure(model: Model, each: Collected, work: Path, bar: Bar) -> tuple[list[Score], list[str]]:
    """(scores by language and their mean, languages without a text)."""
    benchmark = each.benchmark
    asked = Asked[Any, Any](benchmark.name, benchmark.task, each.content, benchmark.languages, each.training)
    scores: list[Score] = []
    missing: list[str] = []
    for language, score in TASKS[benchmark.task.kind].measure(asked, Vectors(model, benchmark.text_kind, work)):
        if score is None:
            missing.append(language)
        else:
            scores.append(score)
        bar.advance(benchmark=benchmark.name)
    if len(scores) > 1:
        scores.append(over_languages(scores))
    return scores, missing
