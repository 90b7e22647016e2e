"""Whitening and centring by language: from training captions only, and the same wherever texts are read."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from flame_core.captions.table import read_captions
from flame_core.data.shards import shard_names
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.stages import embed, embed_texts
from flame_core.text.encoder import TextEncoder
from flame_core.text.frozen_texts import FacetTexts
from flame_core.text.store import Drawn, TextStore, TrainStore, unit
from tests.stages.adapted_world import adapted_world
from tests.stages.pipeline import tree


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> tuple[Params, Layout]:
    """Captions of drawings in English and German."""
    params, layout = adapted_world(tmp_path_factory.mktemp("centring"), byte_tokenizer)
    return params.model_copy(update={"adapt_llm": None}), layout


def centred(params: Params, how: str) -> Params:
    return params.model_copy(update={"text": params.text.model_copy(update={"center": how})})


def texts_of(layout: Layout, split: str, language: str) -> list[str]:
    rows = [row for path in sorted((layout.captions / split).glob("*.parquet")) for row in read_captions(path)]
    return sorted({row.text for row in rows if row.kind == "raw" and row.language == language})


def test_texts_of_a_language_are_centred_by_its_training_captions_and_queries_are_not(world):
    params, layout = world
    wanted = centred(params, "per_language")
    embed.run(wanted, layout)
    store, encoder = TextStore.open(layout.embeddings), TextEncoder.open(params, layout)
    german, english = texts_of(layout, "val", "de")[:3], texts_of(layout, "val", "en")[:3]
    learned = encoder.encode("raw", texts_of(layout, "train", "de"))
    of_facet = load_file(layout.train_embeddings / "center.safetensors")["embeddings"][0]
    t = encoder.encode("raw", german)
    np.testing.assert_allclose(store.lookup("raw", german), unit(t - learned.mean(axis=0)), atol=5e-3)
    np.testing.assert_allclose(store.lookup("raw", english), unit(encoder.encode("raw", english) - of_facet), atol=5e-3)
    manifest = store.manifest
    side = FacetTexts(manifest["text_facets"], 64, store.centring_of("facets"), lambda: encoder, store)
    np.testing.assert_allclose(side.encode("raw", german), unit(t - of_facet), atol=5e-3)
    unseen = side.encode("raw", ["ein Text"])
    np.testing.assert_allclose(unseen, unit(encoder.encode("raw", ["ein Text"]) - of_facet), atol=5e-3)
    before = tree(layout.embeddings)
    embed_texts.run(wanted, layout)
    assert tree(layout.embeddings) == before


def test_whitened_vectors_vary_alike_and_samples_and_texts_get_the_same(world):
    params, layout = world
    shards = shard_names(layout.shards, "train")
    embed.run(centred(params, "per_facet"), layout)
    only_centred = TrainStore(layout.embeddings)
    places = [Drawn(shard, row, [0]) for shard in shards for row in range(only_centred.rows(shard))]
    before = only_centred.read(places)[:, 0].numpy()
    embed.run(centred(params, "whiten"), layout)
    after = TrainStore(layout.embeddings).read(places)[:, 0].numpy()
    own = load_file(layout.train_embeddings / "center.safetensors")
    assert own["matrix"].shape == (64, 64)
    top = [np.linalg.eigvalsh(np.cov(x.T))[-1] / np.trace(np.cov(x.T)) for x in (before, after)]
    assert top[1] < 0.6 * top[0]
    text = texts_of(layout, "val", "de")[:1]
    t = TextEncoder.open(params, layout).encode("raw", text)
    expected = unit((t - own["embeddings"][0]) @ own["matrix"])
    np.testing.assert_allclose(TextStore.open(layout.embeddings).lookup("raw", text), expected, atol=2e-2)
    assert not (layout.embeddings / "languages.parquet").exists()
    first = tree(layout.embeddings)
    embed.run(centred(params, "whiten"), layout)
    assert tree(layout.embeddings) == first
