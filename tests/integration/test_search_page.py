"""The search page in a real browser, with a model that was trained on real pictures and knows them well."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator

import pytest
import yaml

from flame_core.layout import Layout
from flame_core.params import load_params
from flame_core.search.ask import Searcher
from tests.integration.conftest import Project
from tests.orchestration.ui import browser
from tests.orchestration.ui.browser import Browser

PROGRAM = browser.find()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (apt-get install chromium)")]
LANGUAGES = ("en", "de", "fr")
FIRST = "document.querySelector('#hits .key')?.innerText"
DROP = """
(() => {
  const bytes = Uint8Array.from(atob('%s'), (letter) => letter.charCodeAt(0)), data = new DataTransfer();
  data.items.add(new File([bytes], 'given.jpg', {type: 'image/jpeg'}));
  document.getElementById('drop').dispatchEvent(new DragEvent('drop', {bubbles: true, dataTransfer: data}));
})()
"""


@pytest.fixture(scope="module")
def searcher(project: Project) -> Searcher:
    """Of all pictures, most of which the model was trained on, in English only."""
    from flame_core.model.locate import model_of_run

    project.change({"text": {"layer": 29}, "train": {"epochs": 150, "optimizer": {"learning_rate": 0.002}}})
    project.flame("run")
    layout = Layout.find(project.root)
    params = load_params(layout)
    return Searcher(params, layout, model_of_run(params, layout, "flame"))


@pytest.fixture
def page(project: Project, searcher: Searcher) -> Iterator[Browser]:
    process = project.start("serve", "--port", "0", "--index", "all")
    assert process.stdout
    url = next(found[0] for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+/", line)))
    tab = Browser(PROGRAM or "", 1200, 900)
    tab.open(url)
    yield tab
    tab.close()
    process.terminate()
    assert process.wait(timeout=60) == 0


def captions(searcher: Searcher, language: str) -> list[tuple[str, str]]:
    """(key, text) of the pictures' own captions."""
    from flame_core.captions.table import read_captions

    files = sorted(searcher.layout.captions.rglob("*/*.parquet"))
    every = [caption for file in files for caption in read_captions(file)]
    return [(each.key, each.text) for each in every if each.kind == "raw" and each.language == language]


def type_in(page: Browser, text: str) -> None:
    page.run(f"document.getElementById('text').value = {json.dumps(text)}")
    page.click("Search")


def test_texts_in_three_languages_and_a_dropped_picture_find_their_picture_first(page: Browser, searcher: Searcher):
    page.wait("!!document.querySelector('#index option')")
    for language in LANGUAGES:
        own = captions(searcher, language)
        known = [(key, text) for key, text in own if searcher.text(text, "all", 1).hits[0].key == key]
        assert len(known) > (len(own) // 2 if language == "en" else 2), language
        key, text = known[0]
        type_in(page, text)
        page.wait(f"{FIRST} === {json.dumps(key)}")
    gallery = searcher.gallery("all")
    page.run(DROP % base64.b64encode(gallery.picture(7)).decode())
    page.wait(f"{FIRST} === {json.dumps(gallery.keys[7])}")
    assert page.run("document.querySelector('#hits b').innerText") == "1.000"


def test_a_picture_opens_with_its_patches_in_words(page: Browser, searcher: Searcher):
    _, text = captions(searcher, "en")[0]
    page.wait("!!document.querySelector('#index option')")
    type_in(page, text)
    page.wait("!!document.querySelector('#hits button')")
    page.run("document.querySelector('#hits button').click()")
    page.run("document.querySelector('[name=mode][value=words]').click()")
    side = page.wait("Math.sqrt(document.querySelectorAll('#cells span').length)")
    assert side == 4  # 32 pixels, patches of 8
    assert all(page.run("[...document.querySelectorAll('#cells span')].map(e => e.innerText)"))
    page.run("document.querySelector('[name=mode][value=likeness]').click()")
    page.wait("/^-?0\\.\\d\\d$/.test(document.querySelector('#cells span')?.innerText)")
    page.click("Pictures like this")
    page.wait("document.querySelector('#hits b')?.innerText === '1.000'")


def test_a_mistake_is_said_on_the_page(page: Browser):
    page.wait("!!document.querySelector('#index option')")
    page.run(DROP % base64.b64encode(b"no picture").decode())
    page.wait_for_text("cannot be used as a picture")


def test_the_shell_asks_the_server_that_runs(page: Browser, project: Project):
    """The second process does not load the LLM; it would take seconds of CPU time."""
    page.wait("!!document.querySelector('#index option')")
    state = json.loads((project.root / ".flame/search-server.json").read_text())
    assert state["url"].startswith("http://127.0.0.1:")
    before = time.monotonic()
    project.flame("query", "a text nobody asked before", "--index", "all")
    assert time.monotonic() - before < 60
    assert yaml.safe_load((project.root / "params.yaml").read_text())["train"]["epochs"] == 150
