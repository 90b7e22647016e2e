"""The benchmarks of a recipe's model: the held-out split and all that `evaluate.benchmarks` names."""

from __future__ import annotations

from dataclasses import replace

from flame_core.layout import Layout
from flame_core.measuring.held_out import HeldOut
from flame_core.params import Params
from flame_core.suite.benchmark_results import BenchmarkResult
from flame_core.suite.collection import Collected, collect, require_collected
from flame_core.suite.held_out_benchmarks import held_out_results
from flame_core.suite.measurement import run_benchmarks
from flame_core.suite.models.trained import TrainedModel
from flame_core.text.manifest import read_manifest


def collected_benchmarks(params: Params, layout: Layout) -> list[Collected]:
    """The configured benchmarks, as they were when their texts were embedded.

    Raises:
        InputError: data appeared, disappeared or changed since; names the command to run.
    """
    collected = collect(params, layout)
    require_collected(collected, read_manifest(layout.embeddings))
    return collected


def recipe_results(params: Params, layout: Layout, recipe: str, held_out: HeldOut) -> list[BenchmarkResult]:
    """The results of a recipe's model on all benchmarks; `held_out` has the model and its vectors of the split."""
    own = held_out_results(held_out.evaluation, params.evaluate)
    model = TrainedModel(recipe, held_out.encoder, layout.model(recipe), held_out.texts.lookup)
    found = run_benchmarks(model, collected_benchmarks(params, layout), params.evaluate.confidence, layout.work)
    cut = held_out.texts.cut_texts
    return own + [replace(each, cut_texts=cut.get(each.benchmark.name, 0)) for each in found]
