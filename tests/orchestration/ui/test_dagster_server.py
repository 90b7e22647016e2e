"""Dagster's web server as we start it, asked over HTTP as other sites' pages, other machines and its own page ask it.

Each attack sends a mutation that sets a limit in Dagster's instance, and looks there whether it was executed.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.ports import free_port

MUTATION = 'mutation { setConcurrencyLimit(concurrencyKey: "%s", limit: 7) }'
QUERY = "{ version }"
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Server:
    """A running `python -m orchestration.ui.dagster_server`."""

    port: int
    home: Path

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
        """Status and body; a header of the same name replaces the default, `_` stands for `-`."""
        named = {"Host": self.host, **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in named.items():
            connection.putheader(name, value)
        content = None if body is None else body.encode()
        if content is not None:
            connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        connection.close()
        return answer.status, text

    def limits(self) -> set[str]:
        """What mutations have set."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            return set(instance.event_log_storage.get_concurrency_keys())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (home / "workspace.yaml").write_text("load_from: []\n")
    port = free_port()
    variables = {
        "DAGSTER_HOME": str(home),
        "FLAME_DAGSTER_PORT": str(port),
        "FLAME_UI_NAMES": "flame.example.org, other",
    }
    output = home / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestration.ui.dagster_server", str(home / "workspace.yaml")],
            env={**os.environ, **variables},
            stdout=file,
            stderr=file,
        )
    made = Server(port, home)
    deadline = time.monotonic() + 90
    while True:
        try:
            assert made.ask("GET", "/server_info")[0] == 200
            break
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, output.read_text()
            time.sleep(0.2)
    yield made
    process.terminate()
    process.wait(timeout=30)


def mutation(name: str) -> str:
    return json.dumps({"query": MUTATION % name})


def by_get(document: str) -> str:
    return "/graphql?" + urllib.parse.urlencode({"query": document})


def test_its_own_page_and_programs_may_ask_and_change(server: Server) -> None:
    own = {"Origin": f"http://{server.host}", "Sec_Fetch_Site": "same-origin"}
    assert server.ask("POST", "/graphql", mutation("page"), **JSON, **own)[0] == 200
    assert server.ask("POST", "/graphql", mutation("program"), **JSON)[0] == 200
    proxied = {"Host": "flame.example.org", "Origin": "https://flame.example.org", "Sec_Fetch_Site": "same-origin"}
    assert server.ask("POST", "/graphql", mutation("proxied"), **JSON, **proxied)[0] == 200
    assert {"page", "program", "proxied"} <= server.limits()
    status, text = server.ask("GET", by_get(QUERY))
    assert status == 200 and "version" in json.loads(text)["data"]
    assert "<html" in server.ask("GET", "/runs", Sec_Fetch_Site="cross-site", Accept="text/html")[1]  # a link to it


@pytest.mark.parametrize(
    ("name", "document", "more"),
    [
        ("plain", MUTATION % "plain", ""),
        ("second", "query Q { version } " + MUTATION.replace("mutation", "mutation M") % "second", "&operationName=M"),
        ("image", MUTATION % "image", "&variables={}"),
        ("comma", ",,# query\n" + MUTATION % "comma", ""),
        ("mark", "\ufeff" + MUTATION % "mark", ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("headers", [{}, {"Sec_Fetch_Site": "same-origin"}, {"Accept": "text/html"}])
def test_no_mutation_by_get(server: Server, name: str, document: str, more: str, headers: dict) -> None:
    status, text = server.ask("GET", by_get(document) + more, **headers)
    assert status == 405, text
    assert name not in server.limits()


def test_no_mutation_by_get_behind_a_query_or_another_spelling_of_the_path(server: Server) -> None:
    evil = urllib.parse.quote(MUTATION % "twice")
    good = urllib.parse.quote(QUERY)
    paths = [
        f"/graphql?query={good}&query={evil}",
        f"/graphql?query={evil}&query={good}",
        f"/graphql?%71uery={evil}",
        f"/%67raphql?query={evil}",
        f"/graphql/?query={evil}",
        f"//graphql?query={evil}",
        f"/graphql?a;query={evil}&query={evil}",
    ]
    for path in paths:
        server.ask("GET", path)
        server.ask("HEAD", path)
    assert "twice" not in server.limits()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},  # another server of this machine, such as another project's page
        {"Origin": "http://localhost:{port}"},  # not the name that it was called by
        {"Origin": "http://127.0.0.1:{port}.evil.example"},
        {"Origin": "http://evil.example", "Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_nothing_is_changed_for_another_origin(server: Server, headers: dict[str, str]) -> None:
    theirs = {name: value.format(port=server.port) for name, value in headers.items()}
    assert server.ask("POST", "/graphql", mutation("origin"), **JSON, **theirs)[0] == 403
    assert server.ask("GET", by_get(QUERY), **theirs)[0] == 403
    for kind in ("materialization", "observation", "check"):
        status, _ = server.ask("POST", f"/report_asset_{kind}/stolen?check_name=c&passed=true", "{}", **JSON, **theirs)
        assert status == 403
    assert "origin" not in server.limits()
    with dg.DagsterInstance.from_config(str(server.home)) as instance:
        assert not instance.all_asset_keys()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_no_graphql_from_what_a_form_can_send(server: Server, kind: str) -> None:
    """Dagster reads the address then, and an old browser sends a form without saying from where."""
    headers = {"Content_Type": kind} if kind else {}
    assert server.ask("POST", by_get(MUTATION % "form"), mutation("form"), **headers)[0] == 415
    assert "form" not in server.limits()


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost@evil.example", "", "127.0.0.1:", "["],
)  # fmt: skip
def test_no_answer_under_a_name_that_is_not_ours(server: Server, host: str) -> None:
    name = host.format(port=server.port)
    for path in ("/", "/server_info", "/runs", by_get(QUERY), "/logs/x/y/z.err"):
        assert server.ask("GET", path, Host=name)[0] in (400, 421)
    rebound = {"Host": name, "Origin": f"http://{name}", "Sec_Fetch_Site": "same-origin"}
    assert server.ask("POST", "/graphql", mutation("host"), **JSON, **rebound)[0] in (400, 421)
    assert "host" not in server.limits()


@pytest.mark.parametrize("host", ["localhost:{port}", "LOCALHOST", "[::1]:{port}", "127.0.0.1", "flame.example.org"])
def test_it_answers_under_its_own_names(server: Server, host: str) -> None:
    assert server.ask("GET", "/server_info", Host=host.format(port=server.port))[0] == 200


def test_nobody_frames_it_or_reads_it_from_another_site(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for path in ("/", "/graphql", "/server_info"):
        connection.request("GET", path, headers={"Accept": "text/html"})
        answer = connection.getresponse()
        answer.read()
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers
    connection.close()


def websocket(server: Server, origin: str | None, **headers: str) -> list[dict]:
    """What a websocket answers to a mutation and a query: empty where it is refused."""
    address = f"ws://{server.host}/graphql"
    named = Origin(origin) if origin else None
    said = []
    with connect(address, origin=named, subprotocols=["graphql-ws"], additional_headers=headers) as socket:
        socket.send(json.dumps({"type": "connection_init"}))
        said.append(json.loads(socket.recv(timeout=30)))
        socket.send(json.dumps({"id": "1", "type": "start", "payload": {"query": MUTATION % "websocket"}}))
        said.append(json.loads(socket.recv(timeout=30)))
    return said


def test_a_websocket_is_opened_for_its_own_page_and_changes_nothing(server: Server) -> None:
    try:
        said = websocket(server, f"http://{server.host}")
    except ConnectionClosed:
        said = [{"type": "connection_ack"}]
    assert said[0] == {"type": "connection_ack"}
    assert "websocket" not in server.limits()


@pytest.mark.parametrize(
    ("origin", "headers"),
    [
        ("http://evil.example", {}),
        ("null", {}),
        (None, {"Sec-Fetch-Site": "cross-site"}),
        ("http://127.0.0.1:1", {"Sec-Fetch-Site": "same-site"}),
        ("http://evil.example", {"Host": "evil.example"}),
    ],
)
def test_a_websocket_is_not_opened_for_another_origin(server: Server, origin: str | None, headers: dict) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        websocket(server, origin, **headers)
