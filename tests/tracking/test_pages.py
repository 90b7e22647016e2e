"""Links to MLflow's pages: shown where a server shows this store's, and not another project's."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from flame_core.layout import Layout
from flame_core.settings import settings
from flame_core.tracking import pages
from flame_core.tracking.delivery import deliver
from flame_core.tracking.journal import Journal
from flame_core.tracking.pages import TRAINING_PAGES, run_url, runs_url, served, show_pages, version_url
from flame_core.tracking.store import journals, local_address, local_store, open_client
from tests.ports import free_port
from tests.tracking.conftest import end, start
from tests.tracking.server import Server


def test_addresses_of_pages():
    """Each says that they are of trainings: MLflow's pages are otherwise those of LLM applications."""
    assert run_url("http://host:1/", "7", "r") == f"http://host:1/#/experiments/7/runs/r?{TRAINING_PAGES}"
    version = version_url("sqlite:////a/mlflow.db", "my model", "3")
    assert version == f"http://127.0.0.1:5000/#/models/my%20model/versions/3?{TRAINING_PAGES}"


def test_the_page_of_an_experiment_has_its_number_where_the_server_says_it(monkeypatch: pytest.MonkeyPatch):
    asked = []

    class Known:
        def open(self, url: str, timeout: float) -> io.BytesIO:
            asked.append(url)
            return io.BytesIO(b'{"experiment": {"experiment_id": "7"}}')

    monkeypatch.setattr(pages, "opener", lambda url: Known())
    assert runs_url("http://host:1", "mine & theirs") == f"http://host:1/#/experiments/7/runs?{TRAINING_PAGES}"
    assert asked == ["http://host:1/api/2.0/mlflow/experiments/get-by-name?experiment_name=mine%20%26%20theirs"]


def test_the_page_of_an_experiment_that_is_not_there_yet_is_that_of_all():
    assert runs_url("http://127.0.0.1:9", "flame") == f"http://127.0.0.1:9/#/experiments?{TRAINING_PAGES}"


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "sqlite:////a/mlflow.db"])
def test_nothing_is_served_where_nobody_answers(address, monkeypatch):
    monkeypatch.setenv("FLAME_MLFLOW_PORT", "9")
    settings.cache_clear()
    assert not served(address, "r")


def test_a_page_that_no_server_shows_is_named_without_a_link(capsys):
    show_pages({"MLflow run": "http://127.0.0.1:5000/#/r"}, running=False)
    said = capsys.readouterr().err
    assert "MLflow run: recorded" in said and "http" not in said
    show_pages({"MLflow run": "http://127.0.0.1:5000/#/r"}, running=True)
    assert "http://127.0.0.1:5000/#/r" in capsys.readouterr().err


@pytest.mark.slow
def test_the_project_s_own_server_is_told_from_that_of_a_copy(tracked: Layout, tmp_path: Path, monkeypatch) -> None:
    """The copy has the same runs, by the same ids, at another place; the server's script takes its artifacts there."""
    journal = Journal(journals(tracked) / "abc")
    (tracked.root / "x").write_text("x")
    journal.append(start(), {"kind": "artifacts", "files": {"x": journal.keep(tracked.root / "x")}}, end())
    deliver(journal, local_address(tracked))
    run = journal.delivered(local_address(tracked)).run_id
    assert run
    port = free_port()
    monkeypatch.setenv("FLAME_MLFLOW_PORT", str(port))
    settings.cache_clear()
    copy = Layout.find(tmp_path / "copy?of 50%")
    shutil.copytree(tracked.state, copy.state)
    server = Server(local_store(copy), port)
    server.start()
    try:
        assert served(server.address, run)
        assert served(local_address(copy), run)
        assert not served(local_address(tracked), run)
        assert not served(local_address(copy), "0" * 32)
        shutil.rmtree(local_store(tracked) / "artifacts")
        path = open_client(server.address).download_artifacts(run, "x", str(tmp_path))
        assert Path(path).read_text() == "x"
        assert {path.name for path in tmp_path.iterdir()} >= {copy.root.name}
        assert not [path for path in tmp_path.iterdir() if "%3F" in path.name]
    finally:
        server.kill()
