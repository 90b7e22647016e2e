"""An ASGI middleware that protects Dagster's web server, which has no login, from requests by other web pages.

Any page that a person has open can send requests to servers on that person's machine, and can make its own host name
resolve to 127.0.0.1 (DNS rebinding). Browsers say where a request comes from, so these are refused:

- a `Host` that is not one of ours (loopback names, `FLAME_UI_HOST`, `FLAME_UI_NAMES`);
- a request that may change state, a GraphQL query or a websocket from another origin: `Origin` is not the `Host`'s, or
  `Sec-Fetch-Site` is neither `same-origin` nor `none`;
- GraphQL by GET other than queries, and by POST in a content type that forms can send.

Programs other than browsers send neither header and are allowed; they already run on this machine, or came through a
proxy with a login. No page may show the interface in a frame (clickjacking).

References: https://owasp.org/www-community/attacks/csrf, https://www.w3.org/TR/fetch-metadata/
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flame_core.settings import EVERYWHERE

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_SAFE = ("GET", "HEAD", "OPTIONS")
_JSON = ("application/json", "application/graphql", "application/graphql+json")
_POLICY_VIOLATION = 1008  # of a websocket
_HEADERS = {
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


@dataclass(frozen=True)
class Refusal:
    """An HTTP status and the reason."""

    status: int
    reason: str


def host_names(listens_at: str, more: Collection[str] = ()) -> frozenset[str]:
    """The host names that the server accepts: loopback, the name it listens on, and further ones for a proxy."""
    return frozenset((*LOOPBACK, *(_name(given.lower()) for given in (listens_at, *more) if given not in EVERYWHERE)))


def _name(given: str) -> str:
    """A name as in the `Host` of requests, without a port; an IPv6 address in brackets."""
    found = _HOST.fullmatch(given)
    return found["name"] if found else f"[{given}]"


def refusal(scope: Scope, names: Collection[str]) -> Refusal | None:
    """Why a request is refused, or None if it is passed on.

    Args:
        scope: ASGI's scope, of type `http` or `websocket`.
        names: the accepted host names (`host_names`).
    """
    headers = Headers(scope=scope)
    hosts = headers.getlist("host")
    found = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
    if found is None or found["name"] not in names:
        return Refusal(421, f"Host {', '.join(hosts)!r} is not a name of this server; FLAME_UI_NAMES can add names")
    graphql = scope["path"].rstrip("/").endswith("/graphql")
    if scope["type"] == "http" and scope["method"] in _SAFE and not graphql:
        return None
    if elsewhere := _other_origin(headers, hosts[0]):
        return Refusal(
            403, f"this request comes from another origin ({elsewhere}), or a proxy did not pass its Host on"
        )
    if scope["type"] == "http" and graphql:
        return _graphql_refusal(scope, headers)
    return None


def _other_origin(headers: Headers, host: str) -> str | None:
    """The header that names an origin other than this server's; None if there is none."""
    for origin in headers.getlist("origin"):
        if origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            return f"Origin: {origin}"
    for site in headers.getlist("sec-fetch-site"):
        if site not in ("same-origin", "none"):
            return f"Sec-Fetch-Site: {site}"
    return None


def _graphql_refusal(scope: Scope, headers: Headers) -> Refusal | None:
    if scope["method"] not in _SAFE:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _JSON:
            return Refusal(415, f"GraphQL is sent as application/json, not as {kind or 'nothing'}")
        return None
    asked = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    if not all(map(_only_queries, asked.get("query", ()))):
        return Refusal(405, "only GraphQL queries are answered by GET; send a mutation by POST")
    return None


def _only_queries(document: str) -> bool:
    """Whether every operation in a GraphQL document only reads; False if it cannot be parsed."""
    try:
        definitions = parse(document, max_tokens=10_000).definitions
    except (GraphQLError, RecursionError):
        return False
    operations = [each.operation for each in definitions if isinstance(each, OperationDefinitionNode)]
    return all(operation is OperationType.QUERY for operation in operations)


class WebGuard:
    """Passes on requests without a `refusal`, and keeps the answers out of other sites' pages."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):  # the server's own startup and shutdown
            await self._app(scope, receive, send)
            return
        refused = refusal(scope, self._names)
        if refused is None:
            await self._app(scope, receive, _with_headers(send, _HEADERS))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refused.reason[:120]})
        else:
            answer = PlainTextResponse(f"refused: {refused.reason}\n", refused.status, {"allow": "POST"})
            await answer(scope, receive, _with_headers(send, _HEADERS))


def _with_headers(send: Send, more: Mapping[str, str]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in more.items():
                headers[name] = value
        await send(message)

    return sending
