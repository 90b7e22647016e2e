"""flame lexical: words of all captions from stored sentences, the same after a kill, and clear refusals."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from safetensors.numpy import load_file

from flame_core import gates
from flame_core.data.shards import read_index
from flame_core.data.sidecars import Sidecar
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.lexical.lexicon import read_lexicon
from flame_core.lexical.values import dense, pack, unpack
from flame_core.params import LexicalParams, Params
from flame_core.params.text import SentenceParams
from flame_core.stages import embed, lexical
from flame_core.verification import verify
from tests.bits import flip, put_back
from tests.stages.pipeline import captioned_project, tree
from tests.stages.units import computed_by, killed_after

CHOSEN = {"top": 6, "rule": {"min_letters": 1}}


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    """Shards, captions and sentences of 40 drawings in several shards."""
    root = tmp_path_factory.mktemp("lexical")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        params, layout = captioned_project(root, byte_tokenizer, 40)
        sentence = SentenceParams(read="last", final_norm=True, layer=3, prompt="say {caption} :")
        params = params.model_copy(
            update={
                "evaluate": params.evaluate.model_copy(update={"languages": []}),
                "text": params.text.model_copy(update={"sentence": sentence}),
            }
        )
        embed.run(params, layout)
        yield params, layout


def choosing(params: Params, **values) -> Params:
    return params.model_copy(update={"lexical": LexicalParams.model_validate(CHOSEN | values)})


def stored(layout: Layout) -> np.ndarray:
    index = read_index(layout.shards, "train")
    return Sidecar(layout.lexical).read([(row.shard, row.row) for row in index]).numpy()


def sentences(layout: Layout) -> np.ndarray:
    """The vectors [N, D] of the raw captions."""
    files = sorted((layout.train_embeddings / "sentence").glob("[0-9]*.safetensors"))
    return np.concatenate([load_file(file)["embeddings"][:, 0].astype(np.float32) for file in files])


def test_each_caption_has_its_heaviest_words_less_their_means(world):
    params, layout = world
    lexical.run(choosing(params), layout)
    lexicon, t = read_lexicon(layout.lexical), sentences(layout)
    logits = lexicon.length * t.astype(np.float64) @ lexicon.rows.double().numpy().T
    assert lexicon.mean == pytest.approx(logits.mean(axis=0), abs=1e-4)
    numbers, weights = unpack(stored(layout)[:, 0])
    assert np.array_equal(stored(layout)[:, 0], pack(lexicon.logits(t), 6))
    expected = np.sort(np.argsort(-lexicon.logits(t), axis=1, kind="stable")[:, :6], axis=1)
    assert np.array_equal(numbers, expected)
    assert np.linalg.norm(weights, axis=1) == pytest.approx(1, abs=2e-3)
    assert len(lexicon.vocabulary) == 52 and Sidecar(layout.lexical).manifest.shape == (1, 6)
    verify({layout.lexical: ["*"]})
    page = (layout.lexical / "lexical.html").read_text("utf-8")
    assert "drawing number" in page and "52 words" in page
    assert {check.name for check in gates.read(layout.lexical)} == {"words_overused", "words_recalled"}


def test_fewer_words_are_those_that_most_captions_have(world):
    params, layout = world
    lexical.run(choosing(params), layout)
    everyone = read_lexicon(layout.lexical)
    counts = (dense(stored(layout)[:, 0], 52) > 0).sum(axis=0)
    lexical.run(choosing(params, words=10), layout)
    fewer = read_lexicon(layout.lexical)
    expected = np.sort(np.argsort(-counts, kind="stable")[:10])
    assert fewer.vocabulary == everyone.vocabulary.only(expected)
    assert np.array_equal(stored(layout)[:, 0], pack(fewer.logits(sentences(layout)), 6))


def test_killed_after_any_unit_it_continues_and_ends_with_the_same_bytes(world):
    params, layout = world
    wanted = choosing(params, words=20)
    lexical.run(wanted, layout)
    first = tree(layout.lexical)
    units = len(list((layout.work / "lexical").iterdir()))
    for after in range(0, 12, 3):
        shutil.rmtree(layout.work / "lexical")
        killed_after(after, lambda: lexical.run(wanted, layout))
        lexical.run(wanted, layout)
        assert tree(layout.lexical) == first
    assert units >= 12
    assert computed_by(lambda: lexical.run(wanted, layout)) == []


def test_a_flipped_bit_is_not_used(world):
    params, layout = world
    path = next((layout.train_embeddings / "sentence").glob("[0-9]*.safetensors"))
    with put_back(path):
        flip(path, path.stat().st_size - 20, 3)
        with pytest.raises(InputError, match=path.name):
            lexical.run(choosing(params), layout)


def test_what_cannot_be_is_refused_by_key(world):
    params, layout = world
    with pytest.raises(ParamsError, match="has no section `lexical`"):
        lexical.run(params, layout)
    with pytest.raises(ParamsError, match=r"lexical.rule leaves none"):
        lexical.run(choosing(params, rule={"min_letters": 5}), layout)
    with pytest.raises(ParamsError, match=r"lexical.top is 60, and lexical.rule leaves 52 words"):
        lexical.run(choosing(params, top=60), layout)
    earlier = params.text.model_copy(update={"sentence": SentenceParams(read="last", final_norm=True, layer=2)})
    with pytest.raises(ParamsError, match=r"set text.sentence.layer: 3"):
        lexical.run(choosing(params.model_copy(update={"text": earlier})), layout)
    with pytest.raises(ValueError, match="lower it"):
        LexicalParams(top=9, words=8)
