"""Patches of a picture by given words, over HTTP, with a model whose dimensions are words."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from flame_core.layout import Layout
from flame_core.lexical.lexicon import Lexicon
from flame_core.lexical.text_side import LexicalTexts
from flame_core.lexical.vocabulary import Vocabulary, Word
from flame_core.model.loaded import WEIGHTS, Model, Parts
from flame_core.params import IngestParams
from flame_core.search.ask import Searcher
from flame_core.web_search.app import create_app
from flame_core.web_search.service import SearchService
from tests.measuring import world
from tests.pages.test_words_section import D, V, encoder_of_words

TEXTS = ["dog", "Dog", "grass", *(f"other{'abcdefghij'[i // 10]}{'abcdefghij'[i % 10]}" for i in range(V - 3))]


@pytest.fixture
def model(tmp_path: Path) -> Model:
    (tmp_path / WEIGHTS).write_bytes(b"")
    vocabulary = Vocabulary(tuple(Word(i, text, True) for i, text in enumerate(TEXTS)))
    lexicon = Lexicon(vocabulary, torch.zeros(V, D), np.zeros(V), 1.0)
    encoder = encoder_of_words()
    side = LexicalTexts(cast(Any, None), lexicon, 8, tmp_path)
    config = {**encoder.config, "words": V}
    return Model("in words", tmp_path, IngestParams(), {}, config, lambda: Parts(encoder, cast(Any, side)))


def test_patches_say_which_of_them_gave_a_word_its_weight(model: Model, tmp_path: Path):
    service = SearchService(Searcher(cast(Any, None), Layout.find(tmp_path), model), ["held-out"])
    client = TestClient(create_app(service, {"testserver"}), raise_server_exceptions=False)
    body = {"picture": base64.b64encode(world.jpeg(3)).decode()}
    answer = client.post("/api/patches", json={**body, "words": "dog, grass"}).json()
    z = model.encode_image(world.jpeg(3))[0]
    assert [each["word"] for each in answer["given"]] == ["dog", "grass"]
    dog, grass = (np.array(each["patches"]) for each in answer["given"])
    assert dog.shape == grass.shape == tuple(answer["grid"]) == (4, 4)
    assert grass.max() == pytest.approx(z[2], abs=1e-6)
    assert max(z[0], z[1]) < dog.max() <= z[0] + z[1] + 1e-6  # two tokens of one word are added up
    assert client.post("/api/patches", json=body).json()["given"] is None
    refused = client.post("/api/patches", json={**body, "words": "cat"})
    assert refused.status_code == 400 and "do not hold 'cat'" in refused.json()["error"]
