"""The benchmarks of one model or several on a page: tables, charts with published figures, and missing data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flame_core.language_names import language_name
from flame_core.pages.charts import Bar, bar_chart
from flame_core.pages.comparison_charts import DotRow, dot_chart, legend_marks, radar_chart
from flame_core.suite.average import PUBLISHED, TEN_SETS, average_of_ten
from flame_core.suite.benchmark_results import BenchmarkResult, headline_metrics, published
from flame_core.suite.definition import Benchmark
from flame_core.suite.score import MEAN
from flame_core.suite.tasks import TASKS

RADAR_SETS = 10  # with fewer axes, bars are clearer than a polygon
_LABELS = 200
CUT = "texts cut at text.max_caption_tokens"

Models = Mapping[str, Sequence[BenchmarkResult]]  # by the model's name, the first one is the main one


@dataclass(frozen=True)
class Cell:
    """A model's value for a metric, with its interval; None, with the reason, if it has no value."""

    value: float | None
    low: float = 0.0
    high: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class TableRow:
    """A metric of a benchmark for all models, chance, and the best published figure (model, value, source)."""

    benchmark: str
    metric: str
    cells: list[Cell]
    chance: float | None
    best: tuple[str, float, str] | None


@dataclass(frozen=True)
class Absent:
    """A benchmark without data: what is missing and how to get it."""

    title: str
    why: str
    obtain: str


@dataclass(frozen=True)
class Skipped:
    """Data of a benchmark that were not used, or texts that were cut."""

    title: str
    reason: str
    count: int
    names: list[str]


@dataclass(frozen=True)
class BenchmarkSection:
    """All contents of the section; charts are (title, SVG)."""

    models: list[str]
    rows: list[TableRow]
    charts: list[tuple[str, str]]
    languages: list[tuple[str, str]]
    overview: list[tuple[str, str]]
    absent: list[Absent]
    skipped: list[Skipped]
    only_held_out: bool  # no other benchmark was configured
    ties: list[str]  # titles of benchmarks that count a tie as right

    @property
    def marks(self) -> list[dict[str, str]]:
        """How each model's dot looks, for the legend."""
        return legend_marks(len(self.models))

    @property
    def quoted(self) -> bool:
        """Whether any row has a published figure."""
        return any(row.best for row in self.rows)

    @property
    def diamonds(self) -> bool:
        """Whether any chart of dots has a published figure."""
        return any('class="quote"' in chart for _, chart in [*self.overview, *self.languages])

    @property
    def outlined(self) -> bool:
        """Whether any chart of bars has a published figure."""
        return any('class="bar quoted"' in chart for _, chart in self.charts)


def benchmark_section(models: Models) -> BenchmarkSection:
    """The section for these models."""
    models = _told_apart(models)
    names = list(models)
    benchmarks = _benchmarks(models)
    rows, charts, languages = [], [], []
    for benchmark in benchmarks:
        found = {name: result_on(models[name], benchmark.name) for name in names}
        shown_here = benchmark.data.layout != "held_out" or len(names) > 1  # else the report shows it above
        for metric in headline_metrics(benchmark):
            if row := _table_row(benchmark, metric, found):
                rows.append(row)
                if shown_here:
                    charts.append(
                        (f"{benchmark.title}: {metric_name(benchmark, metric)}", _bars(benchmark, metric, found))
                    )
            if shown_here:
                languages += _by_language(benchmark, metric, found, names)
        languages += _by_group(benchmark, found, names)
    rows += _average_row(models)
    held_out = [each.benchmark.data.layout == "held_out" for results in models.values() for each in results]
    return BenchmarkSection(
        names, rows, charts, languages, _overview(benchmarks, models), _absent(models), _skipped(models), all(held_out),
        [b.title for b in benchmarks if TASKS[b.task.kind].counts_ties(b.task)],
    )  # fmt: skip


def result_on(results: Sequence[BenchmarkResult], name: str) -> BenchmarkResult | None:
    """The result on the benchmark of that name."""
    return next((each for each in results if each.benchmark.name == name), None)


def metric_name(benchmark: Benchmark, metric: str) -> str:
    """A metric for readers: `picture → text, recall@1`."""
    head, _, tail = metric.rpartition("/")
    return (f"{head}, " if head else "") + TASKS[benchmark.task.kind].title(tail)


def _told_apart(models: Models) -> Models:
    """The same with a title of its own for each benchmark; those of one title also show their prompt, or their name."""
    known = {each.benchmark.name: each.benchmark for results in models.values() for each in results}
    alike = Counter(each.title for each in known.values())
    prompted = Counter((each.title, each.prompt) for each in known.values())

    def shown(result: BenchmarkResult) -> BenchmarkResult:
        own = result.benchmark
        if alike[own.title] == 1:
            return result
        mark = own.prompt if prompted[own.title, own.prompt] == 1 else own.name
        return replace(result, benchmark=own.model_copy(update={"title": f"{own.title} ({mark})"}))

    return {name: [shown(each) for each in results] for name, results in models.items()}


def _benchmarks(models: Models) -> list[Benchmark]:
    found: dict[str, Benchmark] = {}
    for results in models.values():
        for each in results:
            if each.rows:
                found.setdefault(each.benchmark.name, each.benchmark)
    return list(found.values())


def _table_row(benchmark: Benchmark, metric: str, found: Mapping[str, BenchmarkResult | None]) -> TableRow | None:
    cells, chance, language = [], None, MEAN
    for each in found.values():
        row = each.main if each else None
        if row is None or metric not in row.metrics:
            cells.append(Cell(None, why=each.why if each else "not measured"))
            continue
        cells.append(Cell(row.metrics[metric], *row.intervals[metric]))
        chance, language = row.chance.get(metric, chance), row.language
    if all(cell.value is None for cell in cells):
        return None
    best = published(benchmark, metric, language)
    title = metric_name(benchmark, metric)
    if language != MEAN and len(benchmark.languages) > 1:
        title += f", {language_name(language)}"
    return TableRow(benchmark.title, title, cells, chance, best[0] if best else None)


def _average_row(models: Models) -> list[TableRow]:
    """The average of ten data sets, if any model was measured on all of them."""
    found = [average_of_ten(results) for results in models.values()]
    measured = [each for each in found if each]
    if not measured:
        return []
    cells = [
        Cell(each.value, each.low, each.high) if each else Cell(None, why="not measured on all ten") for each in found
    ]
    return [TableRow(f"Average of {len(TEN_SETS)} data sets", "zero-shot top-1", cells, measured[0].chance, PUBLISHED)]


def _bars(benchmark: Benchmark, metric: str, found: Mapping[str, BenchmarkResult | None]) -> str:
    bars, language = [], MEAN
    for name, each in found.items():
        row = each.main if each else None
        if row and metric in row.metrics:
            language = row.language
            bars.append(Bar(name, row.metrics[metric], *row.intervals[metric], row.chance.get(metric), main=not bars))
    for model, value, _ in published(benchmark, metric, language):
        bars.append(Bar(model, value, value, value, published=True))
    return bar_chart(bars, f"{benchmark.title}: {metric_name(benchmark, metric)}", _LABELS)


def _by_language(
    benchmark: Benchmark, metric: str, found: Mapping[str, BenchmarkResult | None], names: list[str]
) -> list[tuple[str, str]]:
    """One chart if any model was measured in several languages, the first model's best language first."""
    values: dict[str, dict[int, float]] = {}
    chances: dict[str, float] = {}
    for number, each in enumerate(found.values()):
        for row in each.rows if each else []:
            if row.language != MEAN and metric in row.metrics:
                values.setdefault(row.language, {})[number] = row.metrics[metric]
                chances[row.language] = row.chance.get(metric, 0.0)
    if len(values) < 2:
        return []
    order = sorted(values, key=lambda code: (-max(values[code].get(0, 0.0), 0.0), code))
    rows = []
    for code in order:
        figures = published(benchmark, metric, code)
        quoted = (figures[0][0], figures[0][1]) if figures else None
        rows.append(DotRow(language_name(code), values[code], quoted, chances[code], names))
    title = f"{benchmark.title}: {metric_name(benchmark, metric)} by language"
    return [(title, dot_chart(rows, title))]


def _by_group(
    benchmark: Benchmark, found: Mapping[str, BenchmarkResult | None], names: list[str]
) -> list[tuple[str, str]]:
    """One chart of the groups of a benchmark's choices, such as SugarCrepe's seven tasks, sorted by name."""
    values: dict[str, dict[int, float]] = {}
    chances: dict[str, float] = {}
    for number, each in enumerate(found.values()):
        row = each.main if each else None
        for metric in (name for name in (row.metrics if row else {}) if "/" in name):
            assert row is not None
            values.setdefault(metric, {})[number] = row.metrics[metric]
            chances[metric] = row.chance.get(metric, 0.0)
    if not values:
        return []
    rows = []
    for metric in sorted(values):
        figures = published(benchmark, metric, benchmark.languages[0])
        quoted = (figures[0][0], figures[0][1]) if figures else None
        rows.append(DotRow(metric.partition("/")[0], values[metric], quoted, chances[metric], names))
    title = f"{benchmark.title}: {metric_name(benchmark, sorted(values)[0].partition('/')[2])} by group"
    return [(title, dot_chart(rows, title))]


def _overview(benchmarks: Sequence[Benchmark], models: Models) -> list[tuple[str, str]]:
    """The radar chart of classification sets, and the chart of long against short texts, if there are enough sets."""
    names = list(models)
    charts = []
    sets = [
        b
        for b in benchmarks
        if TASKS[b.task.kind].overview == "data sets"
        and b.data.layout != "held_out"
        and all(_value(models[n], b, "acc1") is not None for n in names)
    ]
    if len(sets) >= RADAR_SETS:
        series = [[_value(models[name], b, "acc1") or 0.0 for b in sets] for name in names]
        title = f"Zero-shot top-1 on {len(sets)} data sets"
        charts.append((title, radar_chart([b.title for b in sets], series, title)))
    retrieval = [b for b in benchmarks if TASKS[b.task.kind].overview == "text lengths" and b.data.layout != "held_out"]
    if any(b.long_text for b in retrieval) and not all(b.long_text for b in retrieval):
        rows = []
        for benchmark in sorted(retrieval, key=lambda b: b.long_text):
            metric = headline_metrics(benchmark)[0]
            found = {i: v for i, n in enumerate(names) if (v := _value(models[n], benchmark, metric)) is not None}
            label = ("long: " if benchmark.long_text else "short: ") + benchmark.title
            rows.append(DotRow(label, found, names=names))
        title = "Short texts against long ones: picture → text"
        charts.append((title, dot_chart(rows, title, _LABELS)))
    return charts


def _value(results: Sequence[BenchmarkResult], benchmark: Benchmark, metric: str) -> float | None:
    each = result_on(results, benchmark.name)
    return each.main.metrics.get(metric) if each and each.main else None


def _absent(models: Models) -> list[Absent]:
    rows = {
        each.benchmark.title: Absent(each.benchmark.title, each.why, each.benchmark.data.obtain)
        for results in models.values()
        for each in results
        if each.status == "not available"
    }
    return list(rows.values())


def _skipped(models: Models) -> list[Skipped]:
    rows = {
        (each.benchmark.title, reason): Skipped(each.benchmark.title, reason, count, each.skipped_names[reason])
        for results in models.values()
        for each in results
        for reason, count in each.skipped.items()
    }
    for results in models.values():
        for each in results:
            if each.cut_texts:
                rows[each.benchmark.title, CUT] = Skipped(each.benchmark.title, CUT, each.cut_texts, [])
    return list(rows.values())
