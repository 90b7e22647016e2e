"""Opens the tagger that `concepts.images.tagger` names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pyroaring import BitMap

from flame_core.clustering.sources import GRID, StoredTexts
from flame_core.concepts.bitmaps import read_bitmaps, rows_of
from flame_core.concepts.concept_list import ConceptList
from flame_core.concepts.counting import TEXT, Counting
from flame_core.concepts.taggers import ClassifierTagger, SimilarityTagger, TableTagger
from flame_core.concepts.tags import Tagger
from flame_core.digest import file_sha256
from flame_core.errors import InputError
from flame_core.graph.section_stages import linked_place
from flame_core.layout import Layout
from flame_core.params import ConceptParams, Params
from flame_core.params.concepts import (
    ClassifierTaggerParams,
    ModelTaggerParams,
    TableTaggerParams,
    TowerTaggerParams,
)
from flame_core.settings import settings
from flame_core.suite.models.source import in_project
from flame_core.text.store import TRAIN, TextStore, TrainStore, unit
from flame_core.verification import read_digests
from flame_core.work import Unit


def open_tagger(
    params: Params,
    layout: Layout,
    chosen: ConceptParams,
    concepts: ConceptList,
    counting: Counting,
    text: Mapping[str, Unit],
) -> Tagger | None:
    """The tagger, if pictures are tagged; `text` has the hits in captions by shard.

    Raises:
        InputError: a table, model or stored text is missing or damaged.
        ParamsError: the tower reads other texts than the stored ones.
    """
    if chosen.images is None:
        return None
    language = params.evaluate.train_language
    match tagger := chosen.images.tagger:
        case TableTaggerParams():
            return TableTagger(linked_place(layout, tagger.path), concepts, language)
        case TowerTaggerParams():
            return _of_tower(params, layout, chosen, tagger, concepts, counting, text)
        case ModelTaggerParams():
            return _of_model(layout, tagger, concepts)
        case ClassifierTaggerParams():
            from flame_core.suite.models.picture_classifier import PictureClassifier

            model = PictureClassifier(
                in_project(tagger.source, layout).removeprefix("transformers:"), settings().torch_device()
            )
            identity = {"kind": "classifier", **model.identity}
            return ClassifierTagger(layout.shards, model.probabilities, model.labels, concepts, language, identity)


def _of_model(layout: Layout, tagger: ModelTaggerParams, concepts: ConceptList) -> Tagger:
    from flame_core.suite.models.model import open_model

    model = open_model("concepts.images", in_project(tagger.source, layout), settings().torch_device())
    vectors = _of_prompts(concepts, tagger.prompts, lambda texts: model.texts("raw", texts))
    covered = np.ones(len(concepts), bool)
    return SimilarityTagger(layout.shards, model.pictures, vectors, covered, {"kind": "model", **model.identity})


def _of_tower(
    params: Params,
    layout: Layout,
    chosen: ConceptParams,
    tagger: TowerTaggerParams,
    concepts: ConceptList,
    counting: Counting,
    text: Mapping[str, Unit],
) -> Tagger:
    from flame_core.measuring.image_vectors import require_same_space, require_stored_facets
    from flame_core.measuring.text_side import texts_of
    from flame_core.model_files import CONFIG, WEIGHTS
    from flame_core.vision.image_encoder import load_encoder

    folder = layout.model(tagger.recipe)
    encoder = load_encoder(folder, settings().torch_device())
    store = TextStore.open(layout.embeddings)
    identity = {"kind": "tower", "weights": file_sha256(folder / WEIGHTS), "config": file_sha256(folder / CONFIG)}
    if tagger.texts == "prompts":
        require_same_space(encoder.config, store.manifest, folder)
        side = texts_of(folder, params, layout, store)
        vectors = _of_prompts(concepts, tagger.prompts, lambda texts: side.lookup("raw", texts)[:, 0])
        covered = np.ones(len(concepts), bool)
    else:
        where = "concepts.images.tagger (texts: captions; `prompts` reads them as the recipe does)"
        require_stored_facets(encoder.config, store.manifest, folder, where)
        vectors = _of_captions(layout, chosen, counting, text)
        covered = np.linalg.norm(vectors, axis=1) > 0
    return SimilarityTagger(layout.shards, encoder.encode, vectors, covered, identity)


def _of_prompts(concepts: ConceptList, prompts: Sequence[str], encode: Any) -> np.ndarray:
    """[C, D] unit vectors: the normalised mean of the normalised prompts of each concept."""
    found = [unit(encode([prompt.replace("{concept}", name) for prompt in prompts])) for name in concepts.names]
    return unit(np.stack([each.mean(axis=0, dtype=np.float64) for each in found])).astype(np.float32)


def _of_captions(layout: Layout, chosen: ConceptParams, counting: Counting, text: Mapping[str, Unit]) -> np.ndarray:
    """[C, D]: the normalised mean of the stored vectors of samples whose captions mention the concept; else zeros.

    A sample of several captions of a kind has the vectors of the first one, whichever mentions the concept.
    Sums are of whole numbers, so they do not depend on the order.
    """
    store = TrainStore(layout.embeddings)
    slots = [number for number, name in enumerate(store.facets) if _is_of(name, chosen.kinds)]
    if not slots:
        raise InputError(
            f"{layout.train_embeddings} has no facets of {', '.join(chosen.kinds)}: add the kind to "
            "text.train_kinds, or take `texts: prompts`"
        )
    digests = {Path(name).name: sha for name, sha in read_digests(layout.embeddings / TRAIN).items() if "/" not in name}
    source = StoredTexts(store, digests, slots)
    total: np.ndarray | None = None
    for shard in counting.sizes:
        hits = read_bitmaps(text[shard].file(TEXT))[chosen.mode]
        needed = rows_of(BitMap.union(*hits))
        vectors = source.read(shard, needed.tolist()) if len(needed) else np.zeros((0, source.dims))
        sums = np.stack([vectors[np.searchsorted(needed, rows_of(own))].sum(axis=0) for own in hits])
        total = sums if total is None else total + sums
    assert total is not None
    return unit(total / GRID).astype(np.float32)


def _is_of(name: str, kinds: Sequence[str]) -> bool:
    """Whether a stored vector such as raw/1 is a facet of one of the kinds."""
    kind, _, rest = name.partition("/")
    return kind in kinds and rest.isdecimal()
