"""Find pictures by a text: `flame query "a red bird"`.

A text is read as those were that the model was trained against (`measuring.text_side`). For a model of facets that
is the raw template, as in single-prompt evaluation, or every facet of the short template (`--facets`): then a picture's
score is the mean over facets j of <z_j, t_j>. A text that the store holds needs no LLM. The gallery's embeddings are
computed once per model and kept in the work cache.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flame_core import gates
from flame_core.captions.table import read_captions
from flame_core.data.shards import INDEX, IndexRow, Split, read_index
from flame_core.digest import file_sha256
from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.measuring.facet_pairing import picture_vectors, text_vectors
from flame_core.measuring.image_vectors import encode_pictures, require_same_space
from flame_core.measuring.similarity import best_candidates
from flame_core.measuring.text_side import texts_of
from flame_core.measuring.texts import FACET_KIND
from flame_core.params import Params
from flame_core.settings import settings
from flame_core.text.manifest import require_fit
from flame_core.text.store import TextStore
from flame_core.verification import verify
from flame_core.work import UnitRecord, WorkCache

_GALLERY = "gallery.npy"


@dataclass(frozen=True)
class Hit:
    """A picture found by a text: its shard, its cosine, and its first raw caption."""

    key: str
    shard: str
    score: float
    caption: str


def search(
    params: Params,
    layout: Layout,
    recipe: str,
    text: str,
    top: int,
    splits: Sequence[Split] = ("val",),
    facets: bool = False,
) -> list[Hit]:
    """The `top` pictures of the splits for a text, the best first; with `facets`, one query per facet.

    Raises:
        InputError: the model, the shards or the store is missing, or does not fit this run.
        ParamsError: `facets` is set, but `text.template` has no short template.
        GateError: one of them failed a quality gate.
    """
    for source in (layout.shards, layout.embeddings, layout.model(recipe)):
        gates.require(source)
    store = TextStore.open(layout.embeddings)
    require_fit(store.manifest, params, layout)
    rows = [row for split in splits for row in read_index(layout.shards, split)]
    z = np.concatenate([_gallery(layout, recipe, split, store.manifest) for split in splits])  # [N, 1 + F, D]
    if facets and FACET_KIND not in params.text.template:
        raise ParamsError(f"facet queries need text.template.{FACET_KIND}, which params.yaml does not have")
    kind = FACET_KIND if facets else "raw"
    t = texts_of(layout.model(recipe), params, layout, store).encode(kind, [text])[0]  # [K, D]
    asked, pictures = (text_vectors(t[None], z.shape[1] - 1), picture_vectors(z)) if facets else (t, z[:, 0])
    order, scores = best_candidates(asked, pictures, top)
    found = [rows[index] for index in order[0]]
    captions = _captions(layout.captions, found)
    return [
        Hit(row.key, row.shard, float(score), captions.get(row.key, ""))
        for row, score in zip(found, scores[0], strict=True)
    ]


def _gallery(layout: Layout, recipe: str, split: Split, manifest: dict[str, Any]) -> np.ndarray:
    """Picture embeddings [N, 1 + F, D] of a split by the model of a recipe."""
    from flame_core.vision.tower import CONFIG, WEIGHTS, load_encoder

    model = layout.model(recipe)
    require_same_space(json.loads((model / CONFIG).read_text("utf-8")), manifest, model)
    inputs = {
        "config": file_sha256(model / CONFIG),
        "weights": file_sha256(model / WEIGHTS),
        "index": file_sha256(layout.shards / INDEX),
        "split": split,
    }

    def write(folder: Path) -> UnitRecord:
        verify({layout.shards: [INDEX, f"{split}/*"], model: ["*"]})
        encoder = load_encoder(model, settings().torch_device())
        z = encode_pictures(encoder, layout.shards, read_index(layout.shards, split))
        np.save(folder / _GALLERY, z)
        return UnitRecord({"pictures": len(z)})

    return np.load(WorkCache(layout.work, "query").get(inputs, write).file(_GALLERY))


def _captions(captions: Path, rows: Sequence[IndexRow]) -> dict[str, str]:
    """{key: first raw caption} of pictures."""
    found: dict[str, str] = {}
    for shard in sorted({row.shard for row in rows}):
        for caption in read_captions(captions / Path(shard).with_suffix(".parquet")):
            if caption.kind == "raw":
                found.setdefault(caption.key, caption.text)
    return found
