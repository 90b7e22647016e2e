"""The models of `evaluate.baselines` on the held-out split and on every benchmark, as files of the stage's out."""

from __future__ import annotations

import numpy as np

from flame_core.captions.table import Caption
from flame_core.data.shards import IndexRow, PictureReader, read_index
from flame_core.layout import Layout
from flame_core.measuring.measures import Evaluation, evaluate
from flame_core.measuring.results import result_files
from flame_core.measuring.texts import read_classes, read_validation_captions
from flame_core.params import Params
from flame_core.reporting import progress
from flame_core.settings import settings
from flame_core.suite.benchmark_results import BenchmarkResult, benchmark_files
from flame_core.suite.held_out_benchmarks import held_out_not_offered, held_out_results
from flame_core.suite.measurement import run_benchmarks
from flame_core.suite.models.model import Model, NotOffered, open_model
from flame_core.suite.recipe_benchmarks import collected_benchmarks

_CHUNK = 256  # pictures whose bytes are in memory at once


def measure(params: Params, layout: Layout) -> dict[str, bytes]:
    """{`<name>/<file>`: content} of every baseline."""
    options = params.evaluate
    collected = collected_benchmarks(params, layout)
    captions = read_validation_captions(layout.captions, options)
    chosen = {caption.key for caption in captions}
    rows = [row for row in read_index(layout.shards, "val") if row.key in chosen]
    contents: dict[str, bytes] = {}
    for name, source in options.baselines.items():
        model = open_model(name, source, settings().torch_device())
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
        files |= benchmark_files(found, name, source)
        contents |= {f"{name}/{file}": content for file, content in files.items()}
    return contents


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
