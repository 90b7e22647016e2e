"""Benchmarks in `evaluate.benchmarks` that are not there, or ask with prompts that `text.template` does not have.

`flame run` asks too, before its first stage: `embed` would refuse them after days of captions.
"""

from __future__ import annotations

from collections.abc import Iterator

from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.params.validation import Fault
from flame_core.suite.definition import lacking_template, load_benchmark

_LISTS = ("names", "only_baselines")


def require_benchmarks(params: Params, layout: Layout) -> None:
    """Refuse them.

    Raises:
        ParamsError: names the key of each.
    """
    if faults := [f"{'.'.join(fault.key)}: {fault.message}" for fault in benchmark_faults(params, layout)]:
        raise ParamsError("\n".join(faults))


def benchmark_faults(params: Params, layout: Layout) -> Iterator[Fault]:
    """All of them; those of baselines only need no template, because the LLM reads none of their texts."""
    names: dict[str, str] = {}
    options = params.evaluate.benchmarks
    listed = [(name, number, entry) for name in _LISTS for number, entry in enumerate(getattr(options, name))]
    for name, number, entry in listed:
        key = ("evaluate", "benchmarks", name, str(number))
        try:
            benchmark = load_benchmark(entry, layout.project)
        except ParamsError as error:
            yield Fault(key, error.message)
            continue
        if benchmark.name in names:
            yield Fault(key, f"{entry} is the benchmark of {names[benchmark.name]} again: remove one")
        names[benchmark.name] = entry
        if name == "names" and (why := lacking_template(benchmark, entry, params.text.template)):
            yield Fault(key, why)
