"""An ASGI middleware that protects Dagster's web server, which has no login, from requests by other web pages.

Besides what `web_origin` refuses of every server, these are refused: a GraphQL query or a websocket from another
origin, GraphQL by GET other than queries, and by POST in a content type that forms can send. `FLAME_UI_HOST` and
`FLAME_UI_NAMES` name the hosts that it answers to.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import parse_qs

from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from flame_core.web_origin import HEADERS, SAFE_METHODS, Refusal, host_refusal, origin_refusal, with_headers

_JSON = ("application/json", "application/graphql", "application/graphql+json")
_POLICY_VIOLATION = 1008  # of a websocket


def refusal(scope: Scope, names: Collection[str]) -> Refusal | None:
    """Why a request is refused, or None if it is passed on.

    Args:
        scope: ASGI's scope, of type `http` or `websocket`.
        names: the accepted host names (`host_names`).
    """
    headers = Headers(scope=scope)
    if refused := host_refusal(headers, names, "FLAME_UI_NAMES"):
        return refused
    graphql = scope["path"].rstrip("/").endswith("/graphql")
    if scope["type"] == "http" and scope["method"] in SAFE_METHODS and not graphql:
        return None
    if refused := origin_refusal(headers):
        return refused
    if scope["type"] == "http" and graphql:
        return _graphql_refusal(scope, headers)
    return None


def _graphql_refusal(scope: Scope, headers: Headers) -> Refusal | None:
    if scope["method"] not in SAFE_METHODS:
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
            await self._app(scope, receive, with_headers(send, HEADERS))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refused.reason[:120]})
        else:
            answer = PlainTextResponse(f"refused: {refused.reason}\n", refused.status, {"allow": "POST"})
            await answer(scope, receive, with_headers(send, HEADERS))
