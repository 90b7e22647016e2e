"""`mlflow/server.sh` as it is started: on a fresh store, twice at once, and with names and passwords."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flame_core.errors import ResourceError
from flame_core.layout import Layout
from flame_core.settings import settings
from flame_core.tracking.delivery import deliver
from flame_core.tracking.journal import KEY_TAG, MODEL_TAG, Journal
from flame_core.tracking.obstacles import Outage
from flame_core.tracking.run import shipping, show_links
from flame_core.tracking.runs import find_record
from flame_core.tracking.store import journals, open_client, tracking_address
from tests.tracking.conftest import end, start, steps
from tests.tracking.server import Server

pytestmark = pytest.mark.slow
SEARCH = "/api/2.0/mlflow/experiments/search"
PASSWORD = "a password of twenty"
BASIC = {"MLFLOW_AUTH": "basic", "MLFLOW_FLASK_SERVER_SECRET_KEY": "for-this-test-alone"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()


def status(server: Server, login: str | None = None, host: str | None = None) -> int:
    """The status code of a search for experiments."""
    headers = {"Content-Type": "application/json"}
    if login:
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    if host:
        headers["Host"] = host
    request = urllib.request.Request(server.address + SEARCH, json.dumps({"max_results": 1}).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_fresh_store_answers_on_loopback_takes_a_training_and_ends_whole(server: Server) -> None:
    server.start()
    assert {path.name for path in server.folder.iterdir()} >= {"mlflow.db", "mlflow.lock"}
    assert status(server) == 200
    assert status(server, host="flame.example.org") == 403  # a name that it was not given
    journal = Journal(server.folder / "journal")
    (server.folder / "params.yaml").write_text("a: 1\n")
    journal.append(
        start(), {"kind": "artifacts", "files": {"params.yaml": journal.keep(server.folder / "params.yaml")}}
    )
    journal.append(*steps(3), end())
    assert deliver(journal, server.address) == 6
    assert [path.name for path in (server.folder / "artifacts").rglob("*") if path.is_file()] == ["params.yaml"]
    assert server.stop() == []
    assert not server.answers()


def test_a_name_is_answered_once_it_is_allowed(server: Server) -> None:
    server.variables = {"MLFLOW_ALLOWED_HOSTS": f"flame.example.org,127.0.0.1:{server.port}"}
    server.start()
    assert (status(server, host="flame.example.org"), status(server)) == (200, 200)
    assert status(server, host="other.example.org") == 403


def test_two_servers_that_start_at_once_on_one_fresh_store(server: Server) -> None:
    other = Server(server.folder)
    try:
        server.launch()
        other.start()
        server.wait()
        assert (status(other), status(server)) == (200, 200)
    finally:
        other.kill()


def test_basic_auth_refuses_strangers_and_takes_the_trainings_of_who_has_a_password(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.variables = {**BASIC, "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD}
    server.start()
    assert status(server) == 401
    assert status(server, "admin:password1234") == 401
    assert status(server, f"admin:{PASSWORD}") == 200
    assert (server.folder / "basic_auth.db").is_file()
    assert PASSWORD not in (server.folder / "basic_auth.ini").read_text()
    journal = Journal(server.folder / "journal")
    journal.append(start(), *steps(3), end())
    with pytest.raises(Outage, match="asks for a login, or does not accept this one"):
        deliver(journal, server.address)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    assert deliver(journal, server.address) == 5
    assert server.stop() == []


def test_the_password_of_the_address_is_used_and_stands_nowhere(
    server: Server, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capfd, caplog
) -> None:
    """`FLAME_TRACKING_URI=http://user:password@host`, in every file of project and server and in all that is said."""
    server.variables = {**BASIC, "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD}
    server.start()
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # so that what the code sets is taken back
        monkeypatch.delenv(name)
    quoted = PASSWORD.replace(" ", "%20")
    monkeypatch.setenv("FLAME_TRACKING_URI", server.address.replace("http://", f"http://admin:{quoted}@"))
    settings.cache_clear()
    layout = Layout.find(tmp_path_factory.mktemp("project"))
    address = tracking_address(layout)
    assert address == server.address
    journal = Journal(journals(layout) / "abc")
    (layout.root / "card").write_text("a card")
    version = {"name": "flame", "tags": {MODEL_TAG: "f00"}, "card": journal.keep(layout.root / "card")}
    journal.append(start(), {"kind": "external", "name": "m", "tags": {KEY_TAG: "abc"}})
    with shipping(journal, address):  # in a process of its own
        journal.append({"kind": "version", "time": 5, **version}, end())
    assert journal.pending(address) == 0
    show_links(journal, address)
    found = open_client(address).get_model_version("flame", "1")
    assert server.address in found.description
    server.stop()
    with pytest.raises(Outage):
        journal.append(end())
        deliver(journal, address)
    with pytest.raises(ResourceError):
        find_record(layout, "models:/flame/1")
    captured = capfd.readouterr()
    said = captured.out + captured.err + caplog.text
    assert "MLflow model: http://127.0.0.1" in said
    files = [path for folder in (layout.root, server.folder) for path in folder.rglob("*") if path.is_file()]
    contents = [path.read_bytes() for path in files] + [said.encode()]
    assert len(files) > 5
    for secret in (PASSWORD, quoted, "admin:"):
        assert not [content for content in contents if secret.encode() in content]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"MLFLOW_AUTH": "basic"}, "MLFLOW_FLASK_SERVER_SECRET_KEY"),
        (BASIC, "MLFLOW_AUTH_ADMIN_PASSWORD"),
        ({"MLFLOW_AUTH": "kerberos"}, "MLFLOW_AUTH=kerberos is unknown"),
        ({"MLFLOW_BACKEND": "nosuch://host/mlflow"}, "cannot prepare the database nosuch"),
    ],
)
def test_what_it_cannot_start_with_is_named(server: Server, variables: dict[str, str], message: str) -> None:
    server.variables = variables
    assert server.launch().wait(timeout=120) != 0
    assert message in server.said
