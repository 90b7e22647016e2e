"""Benchmarks in `evaluate.benchmarks` that are not there, ask with prompts that `text.template` lacks, or lack data.

`flame run` asks too, before its first stage: `embed` would refuse them after days of captions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.outside.noted import as_noted
from flame_core.params import Params
from flame_core.params.validation import Fault
from flame_core.suite.collection import read_benchmark
from flame_core.suite.definition import lacking_template, load_benchmark

_READERS = {"names": "embed", "only_baselines": "baselines"}  # {list: the stage that reads its data first}
log = logging.getLogger(__name__)


def require_benchmarks(params: Params, layout: Layout) -> None:
    """Refuse them, and warn of those whose data are not there.

    Raises:
        ParamsError: names the key of each.
    """
    faults = list(benchmark_faults(params, layout))
    missing: list[Fault] = []
    if not faults:
        faults, missing = benchmark_data(params, layout)
    if faults:
        raise ParamsError("\n".join(map(_told, faults)))
    for warning in missing:
        log.warning("%s", _told(warning))


def _told(fault: Fault) -> str:
    return f"{'.'.join(fault.key)}: {fault.message}"


def benchmark_faults(params: Params, layout: Layout) -> Iterator[Fault]:
    """All of them; those of baselines only need no template, because the LLM reads none of their texts."""
    names: dict[str, str] = {}
    for key, entry in _listed(params):
        try:
            benchmark = load_benchmark(entry, layout.project)
        except ParamsError as error:
            yield Fault(key, error.message)
            continue
        if benchmark.name in names:
            yield Fault(key, f"{entry} is the benchmark of {names[benchmark.name]} again: remove one")
        names[benchmark.name] = entry
        if key[-2] == "names" and (why := lacking_template(benchmark, entry, params.text.template)):
            yield Fault(key, why)


def benchmark_data(params: Params, layout: Layout) -> tuple[list[Fault], list[Fault]]:
    """Benchmarks whose data are damaged, and those that reports leave out since their data are not there.

    Their definitions are right. What is as its stage has read it is not read again.
    """
    damaged, missing = [], []
    data = layout.resolve(params.evaluate.benchmarks.data)
    known = {name: as_noted(params, layout, _READERS[name]) if listed else set() for name, listed in _lists(params)}
    for key, entry in _listed(params):
        benchmark = load_benchmark(entry, layout.project)
        if f"benchmark {benchmark.name}" in known[key[-2]]:
            continue
        try:
            found = read_benchmark(benchmark, data)
        except (InputError, ParamsError) as error:
            damaged.append(Fault(key, f"{entry}: {error}"))
            continue
        if found.content is None:
            told = f"{found.why}, so reports leave {entry} out; it needs {benchmark.data.obtain}"
            missing.append(Fault(key, told))
    return damaged, missing


def _lists(params: Params) -> list[tuple[str, list[str]]]:
    return [(name, getattr(params.evaluate.benchmarks, name)) for name in _READERS]


def _listed(params: Params) -> Iterator[tuple[tuple[str, ...], str]]:
    """(key, entry) of all benchmarks."""
    for name, entries in _lists(params):
        for number, entry in enumerate(entries):
            yield ("evaluate", "benchmarks", name, str(number)), entry
