"""Links both ways, in a real browser: from the champion in MLflow to its data and its Dagster run, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from flame_core.dvc_project.recorded import recorded_stages
from flame_core.layout import Layout
from tests.integration.conftest import Project
from tests.orchestration.ui import browser
from tests.orchestration.ui.browser import Browser
from tests.orchestration.ui.test_servers import Ui

PROGRAM = browser.find()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (apt-get install chromium)")]
LINKS = "[...document.querySelectorAll('a')].map(a => a.href)"


@dataclass
class Open:
    """Both interfaces after a run from Dagster, and a browser."""

    ui: Ui
    run: str
    tab: Browser

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.ui.mlflow_port}"

    @property
    def dagster(self) -> str:
        return f"http://127.0.0.1:{self.ui.port}"

    def follow(self, part: str) -> str:
        """Click the first link whose address holds `part`; returns the address."""
        url = self.tab.wait(f"{LINKS}.find(href => href.includes({part!r}))", 120)
        self.tab.run(
            f"[...document.querySelectorAll('a')].find(a => a.href.includes({part!r})).removeAttribute('target')"
        )
        self.tab.run(f"[...document.querySelectorAll('a')].find(a => a.href.includes({part!r})).click()")
        return url


@pytest.fixture(scope="module")
def opened(project: Project) -> Iterator[Open]:
    """The project's models, recorded by a run that was started in Dagster's interface."""
    project.change({"evaluate": {"gates": {"min_recall_over_chance": 0.0}}, "promote": {"min_pictures": 1}})
    project.flame("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FLAME_TRACKING_URI")
        ui = Ui(Layout.find(project.root))
    try:
        run = ui.materialize_all(refresh="train@flame,evaluate@flame")
        ui.succeeds(run, seconds=600)
        tab = Browser(PROGRAM or "")
        yield Open(ui, run, tab)
        tab.close()
    finally:
        ui.end()


def test_from_the_champion_to_the_digests_of_its_data_and_its_dagster_run(opened: Open, project: Project) -> None:
    tab = opened.tab
    tab.open(f"{opened.mlflow}/#/models/flame")
    tab.wait_for_text("champion", 120)
    opened.follow("/models/flame/versions/1")
    tab.wait_for_text("Origin", 120)
    assert opened.run in opened.tab.wait(f"{LINKS}.find(href => href.startsWith('{opened.dagster}/runs/'))")
    opened.follow("#/experiments/1/runs/")
    for stage in recorded_stages(project.root)["train@flame"]["deps"]:
        if stage["path"].endswith("/train"):
            tab.wait_for_text(stage["md5"], 120)
    opened.follow(f"{opened.dagster}/runs/")
    tab.wait_for_text(opened.run[:8], 120)
    tab.wait_for_text("Success", 120)


def test_from_the_dagster_asset_to_the_mlflow_run_and_the_version(opened: Open) -> None:
    tab = opened.tab
    tab.open(f"{opened.dagster}/assets/train.flame?view=overview")
    url = opened.follow(f"{opened.mlflow}/#/experiments/")
    tab.wait_for_text("Dagster run", 120)
    assert tab.run("location.href").startswith(url)
    tab.open(f"{opened.dagster}/assets/evaluate.flame?view=overview")
    opened.follow(f"{opened.mlflow}/#/models/flame/versions/1")
    tab.wait_for_text("Origin", 120)
    tab.open(f"{opened.dagster}/assets/promote?view=overview")
    opened.follow(f"{opened.mlflow}/#/models/flame/versions/1")
    tab.wait_for_text("Origin", 120)
