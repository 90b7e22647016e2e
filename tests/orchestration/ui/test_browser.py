"""The web interface in a real browser: a newcomer materializes the graph, and another site's page starts nothing."""

from __future__ import annotations

import http.server
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flame_core.layout import Layout
from tests.foreign_project import edit
from tests.orchestration.test_experiment import layout as layout  # the fixture: FLAME's params, two cheap stages
from tests.orchestration.ui import browser
from tests.orchestration.ui.browser import Browser
from tests.orchestration.ui.test_servers import Ui

PROGRAM = browser.find()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (apt-get install chromium)")]
LAUNCH = """
mutation { launchRun(executionParams: {
  selector: {repositoryLocationName: "flame", repositoryName: "__repository__", pipelineName: "experiment"},
  runConfigData: "{ops: {workspace: {config: {overrides: {train.epochs: 5}}}}}", mode: "default"}) { __typename } }
"""
RUNS = "{ runsOrError { ... on Runs { results { runId } } } }"
ATTACK = """\
<body><form id=form method=post enctype=text/plain target=frame action="%(url)s"><input name='%(json)s' value=''></form>
<iframe name=frame></iframe><img src="%(get)s"><link rel=stylesheet href="%(get)s"><iframe src="%(get)s"></iframe>
<script>
const json = %(literal)s, said = [], each = {mode: 'no-cors', method: 'POST', body: json};
const tried = name => () => said.push(name);
fetch('%(get)s', {mode: 'no-cors', credentials: 'include'}).then(tried('get'), tried('get'));
fetch('%(get)s', {mode: 'no-cors', method: 'POST'}).then(tried('post address'), tried('post address'));
fetch('%(url)s', each).then(tried('post'), tried('post'));
fetch('%(url)s', {method: 'POST', body: json, headers: {'content-type': 'application/json'}})
  .then(tried('post json'), tried('post json'));
const socket = new WebSocket('%(ws)s', 'graphql-ws');
socket.onopen = () => socket.send('{"id": "1", "type": "start", "payload": ' + json + '}');
socket.onclose = tried('websocket');
form.submit();
</script>
"""
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


@contextmanager
def other_site(content: str) -> Iterator[str]:
    """The address of a page of another site, which this machine serves under another name and port."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


def test_a_page_of_another_site_starts_no_run(page: tuple[Ui, Browser], layout: Layout) -> None:
    ui, tab = page
    asked = json.dumps({"query": " ".join(LAUNCH.split())})
    attack = ATTACK % {
        "url": f"http://127.0.0.1:{ui.port}/graphql",
        "ws": f"ws://127.0.0.1:{ui.port}/graphql",
        "get": f"http://127.0.0.1:{ui.port}/graphql?{urllib.parse.urlencode({'query': LAUNCH})}",
        "json": asked,
        "literal": json.dumps(asked),
    }
    with other_site(attack) as address:
        tab.open(address)
        tab.wait("typeof said !== 'undefined' && said.length === 5 && document.readyState === 'complete'")
        time.sleep(3)  # for a form's answer, and for a run that was started to be seen
    assert ui.ask(RUNS)["runsOrError"]["results"] == []
    assert not (layout.state / "runs").exists()

    assert ui.ask(LAUNCH)["launchRun"]["__typename"] == "LaunchRunSuccess"  # what the page tried does start a run
    (run,) = ui.ask(RUNS)["runsOrError"]["results"]
    tab.open(f"http://127.0.0.1:{ui.port}/runs/{run['runId']}")
    tab.wait_for_text("ASSET_MATERIALIZATION", 120)  # its log comes through a websocket
