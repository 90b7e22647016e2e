"""Behind a proxy, servers of this machine are asked directly."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flame_core.layout import Layout
from flame_core.loopback import is_loopback, opener
from flame_core.settings import settings
from flame_core.tracking.dagster_runs import find_run
from flame_core.tracking.pages import served
from orchestration.alert import send
from orchestration.ui.servers import _answers


class _Any(BaseHTTPRequestHandler):
    """Answers every request as Dagster does a question about a run."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.dumps({"data": {"runOrError": {"__typename": "Run"}, "instance": {"info": ""}}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server on loopback, behind a proxy that does not answer."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with HTTPServer(("127.0.0.1", 0), _Any) as here:
        thread = threading.Thread(target=here.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{here.server_port}"
        here.shutdown()
        thread.join()


def test_flame_ui_sees_that_its_servers_answer(server: str) -> None:
    assert _answers(f"{server}/health")


def test_what_this_machine_serves_is_found(server: str, tmp_path: Path) -> None:
    assert served(server, "r")
    assert find_run(Layout.find(tmp_path), "r", f"{server}/runs/r").served
    assert send(server, {}) is None


def test_other_hosts_are_asked_by_the_proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://flame.invalid/x"
    monkeypatch.setenv("http_proxy", server)
    with opener(url).open(url, timeout=5) as answer:
        assert answer.status == 200


def test_where_flame_ui_listens_is_this_machine(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_UI_HOST", "flame.invalid")
    monkeypatch.setenv("http_proxy", server)
    settings.cache_clear()
    with pytest.raises(OSError, match=r"urlopen error \[Errno -\d+\]"):
        opener("http://flame.invalid/x").open("http://flame.invalid/x", timeout=5)


@pytest.mark.parametrize(
    ("host", "own"),
    [("localhost", True), ("127.8.0.1", True), ("::1", True), ("10.0.0.1", False), ("example.org", False), ("", False)],
)
def test_loopback_is_known_by_name_and_number(host: str, own: bool) -> None:
    assert is_loopback(host) is own
