"""The benchmarks of a recipe's model: the held-out split and all that `evaluate.benchmarks` names."""

from __future__ import annotations

from flame_core.evaluation.collection import Collected, collect, require_collected
from flame_core.evaluation.held_out_standings import held_out_standings
from flame_core.evaluation.measures import Evaluation
from flame_core.evaluation.models.trained import TrainedModel
from flame_core.evaluation.standing import Standings
from flame_core.evaluation.suite import run_benchmarks
from flame_core.evaluation.text_side import trained_texts
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.settings import settings
from flame_core.text.manifest import read_manifest
from flame_core.text.store import TextStore


def collected_benchmarks(params: Params, layout: Layout) -> list[Collected]:
    """The configured benchmarks, as they were when their texts were embedded.

    Raises:
        InputError: data came, went or changed since; names the command to run.
    """
    collected = collect(params, layout)
    require_collected(collected, read_manifest(layout.embeddings))
    return collected


def recipe_standings(params: Params, layout: Layout, recipe: str, evaluation: Evaluation) -> list[Standings]:
    """How the model of a recipe stands on all of them."""
    from flame_core.vision.tower import load_encoder

    own = held_out_standings(evaluation, params.evaluate)
    collected = collected_benchmarks(params, layout)
    if not collected:
        return own
    folder = layout.model(recipe)
    encoder = load_encoder(folder, settings().torch_device())
    lookup = trained_texts(folder) or TextStore.open(layout.embeddings).lookup
    model = TrainedModel(recipe, encoder, folder, lookup)
    return own + run_benchmarks(model, collected, params.evaluate.bootstrap, layout.work)
