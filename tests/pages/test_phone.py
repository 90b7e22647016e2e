"""Pages on a phone of 390 CSS pixels: nothing is wider than the screen, and no cell of a table loses its heading."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flame_core.tracking.chain import Link
from flame_core.tracking.history import History, MeasuredModel, RecordedScore
from flame_core.tracking.history_page import history_page
from flame_core.tracking.lineage import Lineage
from flame_core.tracking.lineage_page import lineage_page
from tests.orchestration.ui.browser import Browser, find
from tests.pages.test_alignment import page as alignment_page
from tests.pages.test_report import page

PROGRAM = find()
WIDTH = 390
METRICS = [f"retrieval/{who}/image_to_text/recall@10" for who in ("en", "other_languages")] + ["classification/top1"]
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def phone() -> Iterator[Browser]:
    browser = Browser(PROGRAM or "")
    browser.shows_on(WIDTH, 800)
    yield browser
    browser.close()


def shown(phone: Browser, folder: Path, source: str) -> None:
    (folder / "page.html").write_text(source)
    phone.open((folder / "page.html").as_uri())
    phone.wait(f"document.readyState == 'complete' && location.href.includes('{folder.name}')")
    assert phone.run("[innerWidth, document.documentElement.scrollWidth]") == [WIDTH, WIDTH]


def test_the_report_fits_and_its_contents_stay_in_sight(phone: Browser, tmp_path: Path) -> None:
    shown(phone, tmp_path, page(tmp_path))
    phone.run("window.scrollTo({top: 2000, behavior: 'instant'})")
    assert phone.run("scrollY") == 2000
    assert phone.run("document.querySelector('nav').getBoundingClientRect().top") == 0


def test_the_lineage_fits_with_long_digests(phone: Browser, tmp_path: Path) -> None:
    links = [Link(name, {"digest": "a" * 64, "packages": "torch 2.9.1"}) for name in ("model version", "run", "code")]
    links[1].fail("the run read " + "b" * 64)
    shown(phone, tmp_path, lineage_page(Lineage("models:/flame@champion", links)))
    assert phone.run("document.querySelector('dd').getBoundingClientRect().width") > 250


def test_the_alignment_probe_fits(phone: Browser, tmp_path: Path) -> None:
    shown(phone, tmp_path, alignment_page())


def test_the_history_is_a_list_of_named_values(phone: Browser, tmp_path: Path) -> None:
    models = [
        MeasuredModel(
            run_id="r" * 32, url="http://127.0.0.1/r", when=datetime(2026, 1, day, tzinfo=UTC), recipe="flame",
            commit="0123abc, with changes", workspace="0123456789ab", version=str(day), version_url="http://127.0.0.1/v",
            standing="champion" if day == 2 else "", split="11112222", params={}, data={},
            scores={metric: RecordedScore(0.3, 0.25, 0.4) for metric in METRICS[:2]},
        )
        for day in (1, 2)
    ]  # fmt: skip
    shown(phone, tmp_path, history_page(History(models, METRICS, None), "flame"))
    labels = phone.run(
        "[...document.querySelectorAll('tbody tr:first-child > *')].filter(e => e.offsetHeight)"
        ".map(e => getComputedStyle(e, '::before').content)"
    )
    headings = phone.run("[...document.querySelectorAll('thead th')].map(e => e.textContent)")
    assert [label.strip('"') for label in labels] == headings
    assert phone.run("[...document.querySelectorAll('tbody td')].every(e => e.getBoundingClientRect().right <= 390)")
