"""Layouts of benchmark data, one file each: `read(benchmark, folder, split)` gives the content of a folder."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from flame_core.errors import ParamsError
from flame_core.suite.content import Content, NotAvailable
from flame_core.suite.definition import Benchmark
from flame_core.suite.tasks import TASKS


def read_content(benchmark: Benchmark, data: Path, split: str | None = None) -> Content:
    """The content of a benchmark; `data` is the folder of all benchmarks' data, `split` replaces its own split.

    Raises:
        NotAvailable: its data are missing.
        InputError: they are damaged; names the file and row.
        ParamsError: its layout does not have what its task needs.
    """
    if benchmark.data.layout == "held_out":
        raise ParamsError(f"benchmark {benchmark.name}: the held-out split is always measured; leave it out")
    folder = data / benchmark.data.path
    if not folder.is_dir():
        raise NotAvailable(f"{folder} does not exist")
    layout = benchmark.data.layout
    content = import_module(f"{__name__}.{layout}").read(benchmark, folder, split or benchmark.data.split)
    kind = benchmark.task.kind
    if not isinstance(content, TASKS[kind].wanted):
        raise ParamsError(f"benchmark {benchmark.name}: task {kind} needs {TASKS[kind].wanted_is}, not layout {layout}")
    if not content.pictures:
        raise NotAvailable(f"{folder} holds no picture that can be used{content.skips.told()}")
    return content
