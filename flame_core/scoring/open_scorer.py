"""Opens the scorer that params name. A process keeps the last one and its model, so the next shard finds them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from flame_core import gates
from flame_core.codes.patch_tokens import TrainedTower
from flame_core.errors import InputError, ParamsError
from flame_core.graph.section_stages import linked_place
from flame_core.layout import Layout
from flame_core.measuring.image_vectors import require_stored_facets
from flame_core.model_files import CONFIG
from flame_core.params.scores import (
    ClassifierScorerParams,
    HeadScorerParams,
    ModelScorerParams,
    ScorerParams,
    TableScorerParams,
    TowerScorerParams,
)
from flame_core.scoring.score_head import read_head
from flame_core.scoring.scorers import (
    CaptionScorer,
    ClassifierScorer,
    HeadScorer,
    Scorer,
    TableScorer,
    TowerScorer,
)
from flame_core.settings import settings
from flame_core.suite.models.model import Model, NotOffered, open_model
from flame_core.suite.models.picture_classifier import PictureClassifier
from flame_core.suite.models.source import in_project
from flame_core.text.store import TrainStore
from flame_core.verification import read_object

_opened: dict[tuple[object, ...], Scorer] = {}  # the last one


def open_scorer(name: str, chosen: ScorerParams, layout: Layout, language: str) -> Scorer:
    """The scorer `name`; captions are read in `language`.

    Raises:
        InputError: a model, head, table or store is missing, damaged, or does not fit the others.
        ParamsError: a label is unknown, or a model does not give what a head reads.
        ResourceError: a model cannot be fetched, or its package is missing.
        GateError: the tower failed a blocking check.
    """
    asked = (name, chosen.model_dump_json(), layout, language)
    if asked not in _opened:
        _opened.clear()
        _opened[asked] = _open(name, chosen, layout, language, settings().torch_device())
    return _opened[asked]


def _open(name: str, chosen: ScorerParams, layout: Layout, language: str, device: str) -> Scorer:
    match chosen:
        case TableScorerParams():
            return TableScorer(name, linked_place(layout, chosen.path), chosen.column)
        case ClassifierScorerParams():
            model = PictureClassifier(in_project(chosen.source, layout).removeprefix("transformers:"), device)
            return ClassifierScorer(name, layout.shards, model, chosen.label)
        case ModelScorerParams():
            scoring = _model(in_project(chosen.source, layout), device)
            return CaptionScorer(layout.shards, layout.captions, language, scoring)
        case HeadScorerParams():
            return _with_head(name, chosen, layout, device)
        case TowerScorerParams():
            return _of_tower(name, chosen, layout, device)


def release_scorers() -> None:
    """Forget models, so their memory is free."""
    _opened.clear()
    _model.cache_clear()


@lru_cache(maxsize=1)
def _model(source: str, device: str) -> Model:
    return open_model("scores.scorers", source, device)


def _with_head(name: str, chosen: HeadScorerParams, layout: Layout, device: str) -> Scorer:
    path = linked_place(layout, chosen.file)
    head = read_head(path, chosen.activation)
    model = _model(in_project(chosen.source, layout), device)
    read: Callable[[Sequence[bytes]], np.ndarray] = model.pictures if chosen.features == "projected" else model.features
    try:
        width = read([_blank()]).shape[1]
    except NotOffered as reason:
        raise ParamsError(
            f"scores.scorers.{name}.features is {chosen.features}, which {chosen.source} does not give ({reason}): "
            "write pooled"
        ) from None
    if width != head.width:
        raise InputError(
            f"{path}: the head reads {head.width} numbers, and {chosen.source} gives {width} ({chosen.features}); take "
            "the model that the head was trained on, or the other features"
        )
    about: dict[str, Any] = {"model": dict(model.identity), "features": chosen.features}
    return HeadScorer(layout.shards, read, head, about)


def _of_tower(name: str, chosen: TowerScorerParams, layout: Layout, device: str) -> Scorer:
    folder = layout.model(chosen.recipe)
    if not folder.is_dir():
        raise InputError(
            f"{folder} does not exist: run `flame train {chosen.recipe}`, or correct scores.scorers.{name}"
        )
    gates.require(folder)
    config, store = read_object(folder, CONFIG), TrainStore(layout.embeddings)
    require_stored_facets(config, store.manifest, folder, f"scores.scorers.{name}")
    return TowerScorer(layout.shards, TrainedTower(chosen.recipe, folder, device, in_words=False), store)


def _blank() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "gray").save(buffer, "PNG")
    return buffer.getvalue()
