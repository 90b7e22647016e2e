"""Measures a model on the held-out split of a run, for `evaluate` and for the old champion in a promotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flame_core.captions.table import Caption
from flame_core.data.shards import INDEX, IndexRow, read_index
from flame_core.layout import Layout
from flame_core.measuring.ceilings import text_ceilings
from flame_core.measuring.classification import Lookup
from flame_core.measuring.image_vectors import encode_pictures, require_same_space
from flame_core.measuring.measures import Evaluation, evaluate
from flame_core.measuring.text_side import trained_texts
from flame_core.measuring.texts import read_classes, read_validation_captions
from flame_core.params import Params
from flame_core.settings import settings
from flame_core.text.manifest import MANIFEST, require_fit
from flame_core.text.store import CENTER, TRAIN, TextStore

if TYPE_CHECKING:
    from flame_core.vision.tower import ImageEncoder


@dataclass(frozen=True)
class HeldOut:
    """An evaluation, and what it was measured on.

    Attributes:
        evaluation: the model's results.
        captions: captions of the measured pictures.
        rows: rows of the index, in the order of the evaluation's keys.
        store: the LLM's text embeddings.
        lookup: returns text embeddings for the model: the store's, or those of its own text tower.
        own_texts: whether they are from its own text tower, so that its space is not the LLM's.
        encoder: encodes pictures.
    """

    evaluation: Evaluation
    captions: Sequence[Caption]
    rows: Sequence[IndexRow]
    store: TextStore
    lookup: Lookup
    own_texts: bool
    encoder: ImageEncoder


def measured_from(layout: Layout) -> Mapping[Path, Sequence[str]]:
    """The files that `measure` reads besides the model, for `verification.verify`."""
    return {
        layout.shards: [INDEX, "val/*"],
        layout.captions: ["*"],
        layout.embeddings: [MANIFEST, f"{TRAIN}/{CENTER}", "texts/*"],
    }


def measure(params: Params, layout: Layout, model: Path) -> HeldOut:
    """Measure the model in a folder.

    Raises:
        InputError: the store does not fit the run, or the model was trained into another space.
    """
    from flame_core.vision.tower import load_encoder

    store = TextStore.open(layout.embeddings)
    require_fit(store.manifest, params, layout)
    captions = read_validation_captions(layout.captions, params.evaluate)
    chosen = {caption.key for caption in captions}
    rows = [row for row in read_index(layout.shards, "val") if row.key in chosen]
    encoder = load_encoder(model, settings().torch_device())
    require_same_space(encoder.config, store.manifest, model)
    encoded = encode_pictures(encoder, layout.shards, rows)  # [N, 1 + F, D]
    own = trained_texts(model)
    lookup = own or store.lookup
    keys = [row.key for row in rows]
    ceilings = text_ceilings(params.evaluate, captions, store.lookup)
    classes = read_classes(layout.shards)
    found = evaluate(params, encoded, keys, captions, classes, lookup, ceilings)
    return HeldOut(found, captions, rows, store, lookup, own is not None, encoder)
