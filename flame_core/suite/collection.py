"""Reads the configured benchmarks and collects the texts that they need from the frozen LLM.

`flame embed` (or, only for new benchmarks, `flame embed-texts`) collects them and writes a digest of each into the
store's manifest. Evaluation reads the same files again and refuses data that have changed since. So it is decided once
which benchmarks are available, and an evaluation follows from its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame_core.digest import value_digest
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.suite.content import Content, NotAvailable
from flame_core.suite.definition import Benchmark, lacking_template, load_benchmarks
from flame_core.suite.layouts import read_content
from flame_core.suite.tasks import TASKS
from flame_core.text.jobs import Job, benchmark_jobs
from flame_core.text.store import CUT_SENTENCES

if TYPE_CHECKING:
    from flame_core.text.facets import FacetTokenizer
    from flame_core.text.sentence import SentenceTokenizer

COMMAND = "flame embed-texts"
CUT_TEXTS = "cut_texts"  # in the manifest, as `CUT_SENTENCES`
RECORDED = ("benchmarks", CUT_TEXTS, CUT_SENTENCES)  # of benchmarks in the manifest


@dataclass(frozen=True)
class Collected:
    """A configured benchmark: its content and the data that it trains on, or why it is not available."""

    benchmark: Benchmark
    content: Content | None
    training: Content | None = None
    why: str = ""

    def digest(self) -> str:
        """Digest of its definition and of all its data that are read."""
        parts = [part.digest() for part in (self.content, self.training) if part]
        return value_digest([self.benchmark.model_dump(mode="json"), *parts])

    def texts(self) -> list[str]:
        """The texts that it looks up, each once, in a stable order."""
        task = self.benchmark.task
        return TASKS[task.kind].texts(task, self.content) if self.content else []


def collect(params: Params, layout: Layout, *, of_baselines: bool = False) -> list[Collected]:
    """All configured benchmarks, in the order of the params; `of_baselines`: those of baselines only.

    Raises:
        ParamsError: a definition is wrong, or needs a template that `text.template` does not have.
        InputError: data are damaged.
    """
    options = params.evaluate.benchmarks
    data = layout.resolve(options.data)
    found = []
    entries = options.only_baselines if of_baselines else options.names
    for entry, benchmark in zip(entries, load_benchmarks(entries, layout.project), strict=True):
        if not of_baselines and (why := lacking_template(benchmark, entry, params.text.template)):
            raise ParamsError(why, key="evaluate.benchmarks.names")
        each = read_benchmark(benchmark, data)
        # as in params, so that reports name no folder of this machine
        found.append(replace(each, why=each.why.replace(str(data), options.data)))
    return found


def read_benchmark(benchmark: Benchmark, data: Path) -> Collected:
    """A benchmark as its data are now; `data` is the folder of all benchmarks' data.

    Raises:
        ParamsError: its layout does not have what its task needs.
        InputError: data are damaged.
    """
    try:
        content = read_content(benchmark, data)
        split = TASKS[benchmark.task.kind].training_split(benchmark.task)
        return Collected(benchmark, content, read_content(benchmark, data, split) if split else None)
    except NotAvailable as error:
        return Collected(benchmark, None, why=str(error))


def jobs(collected: Sequence[Collected]) -> list[Job]:
    """The jobs that embed the benchmarks' texts, one per file of the store."""
    return [
        job
        for each in collected
        if each.content and (texts := each.texts())
        for job in benchmark_jobs(each.benchmark.name, each.benchmark.text_kind, texts)
    ]


def digests(collected: Sequence[Collected]) -> dict[str, str]:
    """{name: digest} of the available benchmarks, for the manifest."""
    return {each.benchmark.name: each.digest() for each in collected if each.content}


def recorded(collected: Sequence[Collected], tokens: FacetTokenizer) -> dict[str, dict[str, Any]]:
    """What the manifest says of benchmarks: digests, and how many of their texts are cut; {} if none are configured."""
    if not collected:
        return {}
    cut = {CUT_TEXTS: _cut(collected, tokens)}
    if tokens.sentence is not None:
        cut[CUT_SENTENCES] = _cut(collected, tokens.sentence)
    return {"benchmarks": digests(collected)} | {name: counts for name, counts in cut.items() if counts}


def shown(collected: Sequence[Collected], record: Mapping[str, Any]) -> dict[str, str]:
    """What to show of the benchmarks whose record is in the manifest."""
    if not collected:
        return {}
    there = [each.benchmark.name for each in collected if each.content]
    missing = [f"{each.benchmark.name} ({each.why})" for each in collected if not each.content]
    found = {"benchmarks": ", ".join(there) or "none", "not available": ", ".join(missing) or "none"}
    if cut := record.get(CUT_TEXTS):
        found["cut at text.max_caption_tokens"] = ", ".join(f"{count:,} texts of {name}" for name, count in cut.items())
    return found


def _cut(collected: Sequence[Collected], tokens: FacetTokenizer | SentenceTokenizer) -> dict[str, int]:
    """{name: number of texts that a reading cuts} of the benchmarks that have any."""
    counts = {each.benchmark.name: sum(map(tokens.is_cut, each.texts())) for each in collected if each.content}
    return {name: count for name, count in counts.items() if count}


def require_collected(collected: Sequence[Collected], manifest: Mapping[str, Any]) -> None:
    """Refuse benchmarks whose data or definition appeared, disappeared or changed after their texts were embedded.

    Raises:
        InputError: names the benchmarks and the command that brings the store up to date.
    """
    known, here = manifest.get("benchmarks", {}), digests(collected)
    names = [each.benchmark.name for each in collected]
    new = [name for name in names if name in here and name not in known]
    gone = [name for name in names if name in known and name not in here]
    changed = [name for name in names if name in here and name in known and here[name] != known[name]]
    faults = [
        f"{', '.join(rows)} {what}"
        for rows, what in ((new, "not in the store yet"), (changed, "changed since"), (gone, "no longer there"))
        if rows
    ]
    if faults:
        raise InputError(f"benchmarks: {'; '.join(faults)}. Run `{COMMAND}`, then `dvc commit -f embed`")
