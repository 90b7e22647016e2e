"""Measures a model on the held-out split of a run, for `evaluate` and for the old champion in a promotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flame_core.captions.table import Caption
from flame_core.data.shards import INDEX, IndexRow, read_index
from flame_core.layout import Layout
from flame_core.lexical.text_side import LexicalTexts
from flame_core.measuring.ceilings import text_ceilings
from flame_core.measuring.image_vectors import kept_pictures, require_same_space
from flame_core.measuring.measures import Evaluation, evaluate, headline_k
from flame_core.measuring.text_side import texts_of
from flame_core.measuring.texts import read_classes, read_validation_captions
from flame_core.measuring.words import word_metrics
from flame_core.params import Params
from flame_core.settings import settings
from flame_core.text.language_means import LANGUAGE_FILES
from flame_core.text.manifest import MANIFEST, require_fit
from flame_core.text.sentence import SENTENCE
from flame_core.text.side import TextSide
from flame_core.text.store import CENTER, TRAIN, TextStore

if TYPE_CHECKING:
    from flame_core.vision.image_encoder import ImageEncoder


@dataclass(frozen=True)
class HeldOut:
    """An evaluation, and what it was measured on.

    Attributes:
        evaluation: of the model.
        captions: of the measured pictures.
        rows: of the index, in the order of the evaluation's keys.
        store: the texts of the LLM.
        texts: the model's text side.
        encoder: of the pictures.
    """

    evaluation: Evaluation
    captions: Sequence[Caption]
    rows: Sequence[IndexRow]
    store: TextStore
    texts: TextSide
    encoder: ImageEncoder


def measured_from(layout: Layout) -> Mapping[Path, Sequence[str]]:
    """The files that `measure` reads besides the model, for `verification.verify`."""
    return {
        layout.shards: [INDEX, "val/*"],
        layout.captions: ["*"],
        layout.embeddings: [
            MANIFEST,
            "texts/*",
            *LANGUAGE_FILES,
            f"{TRAIN}/{CENTER}",
            *(f"{TRAIN}/{SENTENCE}/{name}" for name in (MANIFEST, CENTER)),
        ],
    }


def measure(params: Params, layout: Layout, model: Path) -> HeldOut:
    """Measure the model in a folder.

    Raises:
        InputError: the store does not fit the run, or the model was trained into another space.
    """
    from flame_core.vision.image_encoder import load_encoder

    store = TextStore.open(layout.embeddings)
    require_fit(store.manifest, params, layout)
    captions = read_validation_captions(layout.captions, params.evaluate)
    chosen = {caption.key for caption in captions}
    rows = [row for row in read_index(layout.shards, "val") if row.key in chosen]
    encoder = load_encoder(model, settings().torch_device(), params.evaluate.precision)
    require_same_space(encoder.config, store.manifest, model)
    encoded = kept_pictures(encoder, model, layout.shards, rows, layout.work)  # [N, 1 + F, D]
    texts = texts_of(model, params, layout, store)
    keys = [row.key for row in rows]
    of_llm = partial(store.lookup, reading=encoder.config["recipe"].get("reading", "facets"))
    ceilings = text_ceilings(params.evaluate, captions, of_llm)
    classes = read_classes(layout.shards)
    found = evaluate(params, encoded, keys, captions, classes, texts.lookup, ceilings)
    if isinstance(texts, LexicalTexts):
        own = word_metrics(found.z, keys, captions, texts.lookup, params.evaluate, headline_k(params.evaluate))
        found = replace(found, metrics={**found.metrics, **own})
    return HeldOut(found, captions, rows, store, texts, encoder)
