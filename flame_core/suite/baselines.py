"""The models of `evaluate.baselines` on the held-out split and on every benchmark, each as a unit of the work cache."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flame_core.captions.table import Caption
from flame_core.data.shards import INDEX, IndexRow, PictureReader, read_index
from flame_core.digest import file_sha256
from flame_core.errors import ComputationError, FlameError, InputError
from flame_core.layout import Layout
from flame_core.measuring.measures import Evaluation, evaluate
from flame_core.measuring.results import result_files
from flame_core.measuring.texts import read_classes, read_validation_captions
from flame_core.params import Params
from flame_core.reporting import progress
from flame_core.settings import settings
from flame_core.suite.benchmark_results import BenchmarkResult, benchmark_files
from flame_core.suite.collection import Collected, collect
from flame_core.suite.held_out_benchmarks import held_out_not_offered, held_out_results
from flame_core.suite.measurement import run_benchmarks
from flame_core.suite.models.model import Model, NotOffered, open_model
from flame_core.suite.models.source import in_project
from flame_core.suite.recipe_benchmarks import collected_benchmarks
from flame_core.work import Unit, UnitRecord, WorkCache

log = logging.getLogger(__name__)
_CHUNK = 256  # pictures whose bytes are in memory at once


@dataclass(frozen=True)
class Measured:
    """Finished models as units of the work cache, and why others cannot be read, by name."""

    units: dict[str, Unit]
    unread: dict[str, str]


def measure(params: Params, layout: Layout, cache: WorkCache) -> Measured:
    """Measure every baseline; each is kept in the cache as soon as it is done, and does not depend on the others.

    Raises:
        FlameError: some cannot be fetched, or failed while they were measured; all others were measured before.
    """
    options = params.evaluate
    collected = collected_benchmarks(params, layout) + collect(params, layout, of_baselines=True)
    captions = read_validation_captions(layout.captions, options)
    chosen = {caption.key for caption in captions}
    rows = [row for row in read_index(layout.shards, "val") if row.key in chosen]
    data = {
        "evaluate": options.model_dump(mode="json", exclude={"baselines"}),
        "benchmarks": [each.digest() for each in collected],
        "index": file_sha256(layout.shards / INDEX),  # with the digest of every picture
        "captions": [file_sha256(path) for path in sorted((layout.captions / "val").iterdir())],
    }
    units: dict[str, Unit] = {}
    unread: dict[str, str] = {}
    faults: dict[str, FlameError] = {}
    for name, source in options.baselines.items():
        try:
            try:
                model = open_model(name, in_project(source, layout), settings().torch_device())
            except InputError as error:
                unread[name] = str(error)
                continue

            def write(folder: Path, model: Model = model, name: str = name, source: str = source) -> UnitRecord:
                for file, content in _files(params, layout, model, rows, captions, collected, name, source).items():
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    (folder / file).write_bytes(content)
                return UnitRecord({"pictures": len(rows)})

            units[name] = cache.get({**data, "name": name, "source": source, "model": model.identity}, write)
        except FlameError as error:
            faults[name] = error
        except Exception as error:  # whatever somebody else's code raises
            log.exception("%s could not be measured", name)
            faults[name] = ComputationError(f"{type(error).__name__}: {error}")
    if faults:
        told = [f"evaluate.baselines.{name}: {why}" for name, why in {**faults, **unread}.items()]
        kind = type(next(iter(faults.values())))
        raise kind("; ".join(told) + ". What the others gave is kept: `flame baselines` measures only these")
    return Measured(units, unread)


def _files(
    params: Params,
    layout: Layout,
    model: Model,
    rows: list[IndexRow],
    captions: list[Caption],
    collected: Sequence[Collected],
    name: str,
    source: str,
) -> dict[str, bytes]:
    """{file: content} of a model on the held-out split and on the benchmarks."""
    options = params.evaluate
    found: list[BenchmarkResult] = []
    files: dict[str, bytes] = {}
    try:
        evaluation = _on_held_out(params, layout, model, rows, captions)
    except NotOffered as error:
        found.append(held_out_not_offered(options, str(error)))
    else:
        found += held_out_results(evaluation, options)
        files |= result_files(evaluation, name)
    found += run_benchmarks(model, collected, options.confidence, layout.work)
    return files | benchmark_files(found, name, source)


def _on_held_out(
    params: Params, layout: Layout, model: Model, rows: list[IndexRow], captions: list[Caption]
) -> Evaluation:
    reader = PictureReader(layout.shards)
    blocks = []
    with progress(f"pictures of {model.name}", len(rows), "pictures") as bar:
        for start in range(0, len(rows), _CHUNK):
            blocks.append(model.pictures([reader.jpeg(row) for row in rows[start : start + _CHUNK]]))
            bar.advance(len(blocks[-1]))
    keys = [row.key for row in rows]
    classes = read_classes(layout.shards)
    return evaluate(params, np.concatenate(blocks)[:, None], keys, captions, classes, model.facets, {})
