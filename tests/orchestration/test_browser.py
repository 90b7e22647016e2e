"""The web interface in a real browser: see the graph, materialize it, watch it succeed, look at an asset's picture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flame_core.layout import Layout
from tests.orchestration import browser
from tests.orchestration.browser import Browser
from tests.orchestration.conftest import edit
from tests.orchestration.test_experiment import layout as layout  # the fixture: FLAME's params, two cheap stages
from tests.orchestration.test_ui import Ui

PROGRAM = browser.find()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (apt-get install chromium)")]
SHOW = """\
from io import BytesIO
from PIL import Image
from flame_core import reporting

buffer = BytesIO()
Image.new("RGB", (123, 45), "orange").save(buffer, "png")
reporting.facts("compare", {"pairs": 321})
reporting.picture("orange", buffer.getvalue, "png")
"""


@pytest.fixture
def page(layout: Layout) -> Iterator[tuple[Ui, Browser]]:
    (layout.root / "show.py").write_text(SHOW)
    edit(layout.root / "dvc.yaml", "echo done", "python show.py")
    ui = Ui(layout)
    page = Browser(PROGRAM or "")
    yield ui, page
    page.close()
    ui.end()


def test_a_newcomer_materializes_all_and_sees_a_picture(page: tuple[Ui, Browser], layout: Layout) -> None:
    ui, tab = page
    home = f"http://127.0.0.1:{ui.port}"
    tab.open(f"{home}/asset-groups")
    tab.wait_for_text("Materialize all", 90)
    tab.click("Materialize all")
    tab.wait_for_text("Launched run")
    tab.open(f"{home}/runs")
    tab.wait_for_text("Success", 120)
    assert (layout.root / "data/comparison").read_text() == "40\n"

    tab.open(f"{home}/assets/compare?view=overview")
    tab.wait_for_text("321")
    assert tab.wait("document.querySelector('img[alt=orange]')?.naturalWidth") == 123
