"""Patches of a picture by given words, over HTTP, with a model whose dimensions are words."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import uvicorn
from starlette.testclient import TestClient

from flame_core.layout import Layout
from flame_core.lexical.lexicon import Lexicon
from flame_core.lexical.text_side import LexicalTexts
from flame_core.lexical.vocabulary import Vocabulary, Word
from flame_core.model.loaded import Model, Parts
from flame_core.model_files import WEIGHTS
from flame_core.params import IngestParams
from flame_core.search.ask import Searcher
from flame_core.search.galleries import Gallery
from flame_core.search.nearness import Nearness
from flame_core.web_origin import host_names
from flame_core.web_search.app import create_app
from flame_core.web_search.service import SearchService
from tests.measuring import world
from tests.orchestration.ui.browser import Browser, find
from tests.pages.test_words_section import D, V, encoder_of_words

PROGRAM = find()
TEXTS = ["dog", "Dog", "grass", *(f"other{'abcdefghij'[i // 10]}{'abcdefghij'[i % 10]}" for i in range(V - 3))]


@pytest.fixture
def model(tmp_path: Path) -> Model:
    for name in (WEIGHTS, "config.json"):
        (tmp_path / name).write_bytes(b"")
    vocabulary = Vocabulary(tuple(Word(i, text, True) for i, text in enumerate(TEXTS)))
    lexicon = Lexicon(vocabulary, torch.zeros(V, D), np.zeros(V), 1.0)
    encoder = encoder_of_words()
    side = LexicalTexts(cast(Any, None), lexicon, 8, tmp_path)
    config = {**encoder.config, "words": V, "hidden": D}
    return Model(
        "in words",
        tmp_path,
        IngestParams(),
        {"text": {"template": {}}},
        config,
        lambda: Parts(encoder, cast(Any, side)),
    )


def test_patches_say_which_of_them_gave_a_word_its_weight(model: Model, tmp_path: Path):
    service = SearchService(Searcher(cast(Any, None), Layout.find(tmp_path), model), ["held-out"])
    client = TestClient(create_app(service, {"testserver"}), raise_server_exceptions=False)
    body = {"picture": base64.b64encode(world.jpeg(3)).decode()}
    assert client.get("/api/model").json()["words"] is True
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


class OfDrawings(Searcher):
    """Searches the pictures of `world`."""

    def gallery(self, index: str) -> Gallery:
        return self.drawings

    def _near(self, *found: Any, **by: Any) -> Nearness:
        return Nearness(None, "there are no captions to compare with")

    @cached_property
    def drawings(self) -> Gallery:
        views = self.model.encoder.encode_facets([world.jpeg(row) for row in range(len(world.KEYS))])
        return Gallery("drawings", views, world.KEYS, world.KEYS, world.jpeg, lambda numbers: {})


@pytest.fixture
def page(model: Model, tmp_path: Path) -> Iterator[tuple[Browser, OfDrawings]]:
    """The search page of a server in this process."""
    searcher = OfDrawings(cast(Any, None), Layout.find(tmp_path), model)
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(SearchService(searcher, ["held-out", "all"]), host_names("127.0.0.1"))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", log_config=None, lifespan="off"))
    running = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    running.start()
    tab = Browser(PROGRAM or "", 1200, 900)
    try:
        tab.open(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        tab.wait("!!document.querySelector('#index option')")
        yield tab, searcher
    finally:
        tab.close()
        server.should_exit = True
        running.join()
        listening.close()


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")
def test_the_page_frames_the_patch_that_gave_each_word_of_the_score(page: tuple[Browser, OfDrawings]):
    tab, searcher = page
    z = searcher.drawings.views[0, 0]
    first, second = (TEXTS[place] for place in np.argsort(-z)[:2])
    tab.run("document.getElementById('by-words').checked = true")
    tab.run(f"document.getElementById('text').value = '{first}, {second}'")
    tab.click("Search")
    tab.wait("document.querySelectorAll('#hits button').length > 0")
    own = f"[...document.querySelectorAll('#hits button')].find(e => e.innerText.includes('{world.KEYS[0]}'))"
    tab.run(f"{own}.click()")
    tab.run("document.querySelector('[name=mode][value=given]').click()")
    framed = "document.querySelector('#cells .largest')?.innerText"
    for place, word in enumerate((first, second)):
        tab.run(f"document.querySelectorAll('#words button')[{place}]?.click()")
        tab.wait(f"document.getElementById('detail-said').innerText.includes('{word}')")
        assert tab.run(framed) == f"{z[TEXTS.index(word)]:.2f}"
        assert tab.run("document.querySelectorAll('#cells span').length") == 16


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")
def test_pictures_stay_those_of_the_index_that_was_searched(page: tuple[Browser, OfDrawings]):
    """A number means another picture in another index: what was found must not be shown by the wrong one."""
    tab, _ = page
    choose = (
        "(() => {{ const index = document.getElementById('index'); index.value = '{}';"
        " index.dispatchEvent(new Event('change')); }})()"
    )
    count = "document.querySelectorAll('#hits button').length"
    indexes = "[...document.querySelectorAll('#hits img')].map(e => new URL(e.src).searchParams.get('index')).join()"
    tab.run("document.getElementById('by-words').checked = true")
    tab.run(f"document.getElementById('text').value = '{TEXTS[0]}'")
    tab.click("Search")
    tab.wait(count)
    tab.run("document.querySelector('#hits button').click()")
    tab.run("document.getElementById('similar').click()")
    tab.wait("!document.body.classList.contains('busy') && document.getElementById('asked').src.includes('held-out')")
    assert set(tab.run(indexes).split(",")) == {"held-out"}
    tab.run(choose.format("all"))  # where the picture that was asked has another number
    assert tab.run(count) == 0 and "choose a picture" in tab.text()
    tab.run(f"document.getElementById('text').value = '{TEXTS[0]}'")
    tab.click("Search")
    tab.wait(count)
    assert set(tab.run(indexes).split(",")) == {"all"}
    tab.run("document.querySelector('#hits button').click()")
    tab.run("document.getElementById('index').value = 'held-out'")  # as while the next search runs
    tab.run("document.querySelector('[name=mode][value=given]').click()")
    tab.run("document.getElementById('similar').click()")
    assert tab.run("document.getElementById('index').value") == "all"


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")
def test_a_file_may_be_chosen_again_and_a_server_that_ended_is_called_that(page: tuple[Browser, OfDrawings]):
    tab, _ = page
    content = base64.b64encode(world.jpeg(0)).decode()
    tab.run(
        f"(() => {{ const bytes = Uint8Array.from(atob('{content}'), c => c.charCodeAt(0)), moved = new DataTransfer();"
        " moved.items.add(new File([bytes], 'a.jpg', {type: 'image/jpeg'}));"
        " const file = document.getElementById('file'); file.files = moved.files;"
        " file.dispatchEvent(new Event('change')); })()"
    )
    tab.wait("document.querySelectorAll('#hits button').length > 0")
    assert tab.run("document.getElementById('file').value") == ""  # else the browser sees no change
    tab.run("window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    tab.run("document.getElementById('text').value = 'a'")
    tab.click("Search")
    tab.wait_for_text("The server does not answer: is `flame serve` still running?")
