"""The section of words on real towers: the maps say which patch a word comes from."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from flame_core.lexical.lexicon import Lexicon
from flame_core.lexical.text_side import LexicalTexts
from flame_core.lexical.vocabulary import Vocabulary, Word
from flame_core.measuring.held_out import HeldOut
from flame_core.measuring.measures import evaluate
from flame_core.measuring.words import word_metrics
from flame_core.pages.report import render_report
from flame_core.pages.words_section import words_shown
from flame_core.params import TrainParams
from flame_core.patches.word_maps import word_maps
from flame_core.vision.image_encoder import ImageEncoder
from flame_core.vision.tower import ImageTower
from tests.measuring import world
from tests.pages.test_report import Page

V, D = world.DIMENSIONS, 8
WORDS = tuple(Word(i, f"word<{i}>", True) for i in range(V))


def encoder_of_words(**model) -> ImageEncoder:
    """A random tower with 4 x 4 patches and the head of V words."""
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    recipe = TrainParams.model_validate(
        {
            "objective": {"name": "lexical"},
            "kinds": ["raw"],
            "cpu_threads": 1,
            "model": {"head": "lexical", "image_size": 32, "backbone_options": options} | model,
        }
    )
    torch.manual_seed(0)
    tower = ImageTower(recipe.model, D, 1, V)
    cast(Any, tower.projector).start_from(torch.randn(V, D))
    return ImageEncoder(tower, {"recipe": recipe.model_dump()}, "cpu")


def test_a_word_weighs_in_a_picture_what_it_weighs_in_one_of_its_patches():
    encoder = encoder_of_words()
    z = encoder.encode([world.jpeg(row) for row in range(5)])
    found = word_maps(encoder, z, WORDS, [3, 0], 4, world.jpeg)
    assert [each.picture for each in found] == [3, 0]
    for each in found:
        heaviest = np.argsort(-z[each.picture], kind="stable")[:4]
        assert [word for word, _ in each.words] == [f"word<{i}>" for i in heaviest]
        assert each.weights.shape == (4, 4, 4)  # [W, g, g]
        assert each.weights.max(axis=(1, 2)) == pytest.approx(z[each.picture, heaviest], abs=1e-6)
        assert [weight for _, weight in each.words] == pytest.approx(z[each.picture, heaviest])


def held_out(tmp_path, encoder: ImageEncoder) -> HeldOut:
    params, captions = world.params(tmp_path), world.captions()
    z = encoder.encode([world.jpeg(row) for row in range(len(world.KEYS))])
    found = evaluate(params, z[:, None], world.KEYS, captions, world.classes(), world.lookup, {})
    found.metrics.update(word_metrics(z, world.KEYS, captions, world.lookup, params.evaluate, 10))
    lexicon = Lexicon(Vocabulary(WORDS), torch.randn(V, D), np.zeros(V), 4.0)
    texts = LexicalTexts(cast(Any, None), lexicon, 8, tmp_path)
    return HeldOut(found, captions, [], cast(Any, None), cast(Any, texts), encoder)


def test_the_report_shows_the_patches_of_the_heaviest_words(tmp_path):
    measured = held_out(tmp_path, encoder_of_words())
    shown = words_shown(measured, 10, world.jpeg)
    assert shown is not None and [each.picture for each in shown.mapped] == [
        each.picture for each in shown.pictures[:4]
    ]
    for mapped, listed in zip(shown.mapped, shown.pictures, strict=False):
        assert [(word, weight) for word, weight, _ in mapped.maps] == listed.words[:5]
    params = world.params(tmp_path)
    page = Page(
        render_report(
            measured.evaluation, world.facts(params), [], measured.captions, world.lookup, world.jpeg, words=shown
        )
    )
    assert page.open == []
    classes = [attributes.get("class") for tag, attributes in page.tags if tag == "rect"]
    assert classes.count("largest") == 4 * 5 and classes.count("heat") == 4 * 5 * 16
    assert "Where a picture's words come from" in page.text
    assert all(word in page.text for each in shown.mapped for word, _, _ in each.maps)


def test_a_tower_without_a_grid_of_patches_has_no_maps(tmp_path):
    encoder = encoder_of_words(backbone="resnet10t", backbone_options={})
    assert not encoder.gives_patches
    shown = words_shown(held_out(tmp_path, encoder), 10, world.jpeg)
    assert shown is not None and shown.mapped == [] and len(shown.pictures) == 12
