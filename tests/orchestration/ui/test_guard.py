"""What the guard says of requests that HTTP clients do not send; `test_web_server.py` asks a real server."""

from __future__ import annotations

import pytest

from flame_core.settings import Settings
from flame_core.web_origin import host_names
from orchestration.ui.guard import refusal

NAMES = host_names("127.0.0.1")


def asked(
    method: str = "GET", path: str = "/", query: str = "", names: frozenset[str] = NAMES, **headers: str | list[str]
) -> int | None:
    """The status of the refusal, or None."""
    named = {"host": "localhost:3000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    pairs = [
        (name.encode(), each.encode("latin-1"))
        for name, value in named.items()
        for each in ([value] if isinstance(value, str) else value)
    ]
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": pairs}
    refused = refusal(scope, names)
    return refused and refused.status


def test_it_is_called_by_loopback_and_by_what_settings_name() -> None:
    loopback = {"localhost", "127.0.0.1", "[::1]"}
    assert host_names("0.0.0.0") == host_names("::") == loopback
    assert host_names("::1") == loopback
    assert host_names("Box.local", ["flame.example.org:8443", "fe80::1", "[::1]:3000"]) == loopback | {
        "box.local", "flame.example.org", "[fe80::1]"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("listens_at", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:3000"),  # as in a container whose port is published
        ("::", "http://127.0.0.1:3000"),
        ("192.168.1.5", "http://192.168.1.5:3000"),
        ("::1", "http://[::1]:3000"),
    ],
)
def test_it_answers_where_make_ui_says_it_is(listens_at: str, url: str) -> None:
    assert Settings(ui_host=listens_at).ui_url(3000) == url
    assert asked(host=url.removeprefix("http://"), names=host_names(listens_at)) is None


def test_two_hosts_and_two_origins_are_one_too_many() -> None:
    assert asked() is None
    assert asked(host=["localhost:3000", "localhost:3000"]) == 421
    assert asked(host=[]) == 421
    both = ["http://localhost:3000", "http://evil.example"]
    assert asked("POST", "/report_asset_check/x", origin=both) == 403
    assert asked("POST", "/report_asset_check/x", origin=both[:1]) is None


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST", "MADEUP"])
def test_every_method_that_may_change_something_needs_the_own_origin(method: str) -> None:
    assert asked(method, "/runs", origin="http://evil.example") == 403


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ("{ version }", None),
        ("query A { version } query B { version }", None),
        ("fragment F on Query { version }", None),
        ("subscription { version }", 405),
        ("query A { version } mutation B { f }", 405),
        ("{ version", 405),
        ("{a" * 4000, 405),
        ("{ " + "a " * 20_000 + "}", 405),
    ],
)
def test_only_queries_by_get(document: str, status: int | None) -> None:
    from urllib.parse import urlencode

    assert asked("GET", "/graphql", urlencode({"query": document})) == status
    assert asked("HEAD", "/prefix/graphql", urlencode({"query": document})) == status
