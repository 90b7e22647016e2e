"""A model's results on benchmarks, as files: `benchmarks.json` for our pages, and one JSON per language for others.

A file `benchmarks/<benchmark>_<language>.json` has the fields from which `clip_benchmark build` makes a row: dataset,
model, pretrained, task, language and metrics. Of a zero-shot classification, `classes/<benchmark>_<language>.json` has
every class.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from flame_core.digest import json_bytes
from flame_core.errors import InputError
from flame_core.language_names import is_language
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.suite.collection import Collected
from flame_core.suite.definition import Benchmark
from flame_core.suite.score import MEAN, ClassScore, Score
from flame_core.suite.tasks import TASKS

INDEX, FOLDER, CLASSES = "benchmarks.json", "benchmarks", "classes"
Status = Literal["measured", "not available", "not offered"]
_DIGITS = 6


@dataclass(frozen=True)
class LanguageRow:
    """Results in one language: metrics, their intervals {metric: (low, high)}, chance, and other numbers."""

    language: str
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    chance: dict[str, float]
    facts: dict[str, float]


@dataclass(frozen=True)
class BenchmarkResult:
    """The result of one benchmark: its measurements by language (the mean last), or why there are none.

    Attributes:
        benchmark: its definition.
        status: whether it was measured, or what prevented that.
        why: if nothing was measured, the reason.
        rows: by language.
        missing_languages: those in the definition that the data do not have.
        skipped: {reason: number} of entries that could not be used.
        skipped_names: {reason: some names}.
        digest: of the data.
        classes: {language: its classes}, kept in files of their own.
        cut_texts: number of its texts of which the LLM read only the first `text.max_caption_tokens` tokens.
    """

    benchmark: Benchmark
    status: Status
    why: str = ""
    rows: list[LanguageRow] = field(default_factory=list)
    missing_languages: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    skipped_names: dict[str, list[str]] = field(default_factory=dict)
    digest: str = ""
    cut_texts: int = 0
    classes: dict[str, list[ClassScore]] = field(default_factory=dict, compare=False)  # not in the index

    def row(self, language: str) -> LanguageRow | None:
        """The row of a language, or of `mean`."""
        return next((row for row in self.rows if row.language == language), None)

    @property
    def main(self) -> LanguageRow | None:
        """The mean over languages if there is one, else the first row."""
        return self.row(MEAN) or (self.rows[0] if self.rows else None)


def result_of_scores(
    each: Collected, scores: Sequence[Score], missing: list[str], confidence: float
) -> BenchmarkResult:
    """The result of a benchmark that was measured, with numbers rounded for files."""
    rows = [
        LanguageRow(
            score.language,
            _rounded(score.metrics),
            {name: (round(low, _DIGITS), round(high, _DIGITS)) for name, (low, high) in ends.items()},
            _rounded(score.chance),
            _rounded(score.facts),
        )
        for score in scores
        for ends in [score.intervals(confidence)]
    ]
    content = each.content
    assert content is not None
    if not rows:
        why = f"no text in {', '.join(missing)}"
        return BenchmarkResult(each.benchmark, "not available", why, missing_languages=missing)
    return BenchmarkResult(
        each.benchmark,
        "measured",
        rows=rows,
        missing_languages=missing,
        skipped=dict(content.skips.counts),
        skipped_names=dict(content.skips.names),
        digest=each.digest(),
        classes={score.language: score.classes for score in scores if score.classes},
    )


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), _DIGITS) for name, value in values.items()}


def benchmark_files(results: Sequence[BenchmarkResult], model: str, source: str) -> dict[str, bytes]:
    """{file name: content}: the index, and one file per language that was measured."""
    index = [{**asdict(each), "benchmark": each.benchmark.model_dump(mode="json")} for each in results]
    for entry in index:
        del entry["classes"]
        if not entry["cut_texts"]:
            del entry["cut_texts"]
    files = {INDEX: json_bytes(index)}
    for each in results:
        for row in each.rows:
            ends = {f"{name}_{end}": value for name, both in row.intervals.items() for end, value in _ends(both)}
            content: dict[str, Any] = {
                "dataset": each.benchmark.name,
                "model": model,
                "pretrained": source,
                "task": TASKS[each.benchmark.task.kind].exported_as,
                "language": row.language,
                "prompt": each.benchmark.prompt,
                "metrics": {**row.metrics, **ends, **row.facts},
            }
            files[f"{FOLDER}/{each.benchmark.name}_{row.language}.json"] = json_bytes(content)
        for language, classes in each.classes.items():
            rows = [asdict(own) for own in classes]
            files[f"{CLASSES}/{each.benchmark.name}_{language}.json"] = json_bytes(rows)
    return files


def read_class_scores(report: Path, benchmark: str, language: str) -> list[ClassScore]:
    """The classes of a benchmark in a report folder.

    Raises:
        InputError: the report has none of it, or they are damaged.
    """
    path = report / CLASSES / f"{benchmark}_{language}.json"
    if not path.is_file():
        raise InputError(
            f"{path} is missing: the report has no results per class of {benchmark} in {language}. It must be a "
            "zero-shot classification of evaluate.benchmarks.names in that language; then run "
            f"`dvc repro -f evaluate@{report.name}`"
        )
    try:
        return [ClassScore(**row) for row in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); make the report again") from None


def _ends(both: tuple[float, float]) -> list[tuple[str, float]]:
    return [("low", both[0]), ("high", both[1])]


def measured_baselines(params: Params, layout: Layout) -> dict[str, str]:
    """{name: source} of the models of `evaluate.baselines` that have results; a model that cannot be read has none."""
    return {name: source for name, source in params.evaluate.baselines.items() if (layout.baselines / name).is_dir()}


def read_benchmark_results(report: Path) -> list[BenchmarkResult]:
    """The results in a report folder.

    Raises:
        InputError: the index is missing or damaged.
    """
    path = report / INDEX
    try:
        found = []
        for entry in json.loads(path.read_text("utf-8")):
            rows = [
                LanguageRow(**{**row, "intervals": {name: tuple(ends) for name, ends in row["intervals"].items()}})
                for row in entry["rows"]
            ]
            languages = entry["benchmark"].pop("languages")  # the held-out split's come from its data, such as zh_TW
            known = {"languages": [code for code in languages if is_language(code)] or ["en"]}
            benchmark = Benchmark.model_validate(entry["benchmark"] | known).model_copy(update={"languages": languages})
            found.append(BenchmarkResult(**{**entry, "benchmark": benchmark, "rows": rows}))
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no readable benchmark results ({error}); make the report again") from None


def headline_metrics(benchmark: Benchmark) -> list[str]:
    """The metrics by which models are compared on a benchmark."""
    return TASKS[benchmark.task.kind].headline(benchmark.task)


def published(benchmark: Benchmark, metric: str, language: str) -> list[tuple[str, float, str]]:
    """Published figures for a metric and language, the best first: (model, value between 0 and 1, source)."""
    rows = [
        (figure.model, figure.percent[metric] / 100, figure.source)
        for figure in benchmark.published
        if metric in figure.percent and (figure.language or benchmark.languages[0]) == language
    ]
    return sorted(rows, key=lambda row: (-row[1], row[0]))
