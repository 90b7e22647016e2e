"""The HTTP application: a page in three files, and the JSON interface that it uses.

Every error is JSON, `{"error": what was wrong and what to do}`, without this machine's folders. The schema of the
interface is at `/openapi.json`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from flame_core.errors import FlameError, GateError, ResourceError
from flame_core.version import PACKAGE
from flame_core.web_origin import HEADERS, SAFE_METHODS, Refusal, host_refusal, origin_refusal, with_headers
from flame_core.web_search.messages import without_folders
from flame_core.web_search.requests import ClassifyRequest, EncodeRequest, PatchRequest, SearchRequest
from flame_core.web_search.service import SearchService, UnknownError

log = logging.getLogger(__name__)
LARGEST_BODY = 48 << 20  # bytes: a picture of 36 MB in base64
PAGE = Path(__file__).with_name("page")
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'"
_SECURED = {**HEADERS, "content-security-policy": _POLICY, "x-content-type-options": "nosniff"}


def create_app(service: SearchService, names: Collection[str]) -> ASGIApp:
    """The application.

    Args:
        service: answers.
        names: host names that it answers to.
    """
    app = FastAPI(title=f"{PACKAGE} search", docs_url=None, redoc_url=None)  # the pages of those come from elsewhere

    @app.head("/api/model")
    @app.get("/api/model")
    async def model() -> dict[str, Any]:
        """The model and what can be searched."""
        return service.about()

    @app.post("/api/search")
    def search(asked: SearchRequest) -> dict[str, Any]:
        """The nearest pictures, the best first, and whether anything is near."""
        return service.search(asked)

    @app.post("/api/encode")
    def encode(asked: EncodeRequest) -> dict[str, Any]:
        """Unit vectors of texts and pictures."""
        return service.encode(asked)

    @app.post("/api/classify")
    def classify(asked: ClassifyRequest) -> dict[str, Any]:
        """The classes of pictures by the head that `flame tune` made for the model."""
        return service.classify(asked)

    @app.post("/api/patches")
    def patches(asked: PatchRequest) -> dict[str, Any]:
        """The words of the patches of a picture, and their cosines with a text."""
        return service.patches(asked)

    @app.get("/api/picture", response_class=Response)
    def picture(index: str, number: int, side: int = 320, square: bool = False) -> Response:
        """A picture of an index as a JPEG."""
        content = service.picture(index, number, max(16, min(side, 1024)), square)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "no-cache"})

    app.mount("/", StaticFiles(directory=PAGE, html=True))

    @app.exception_handler(FlameError)
    def refused(request: Request, error: FlameError) -> JSONResponse:
        return _error(_status(error), without_folders(str(error), service.root))

    app.add_exception_handler(RequestValidationError, _wrong_body)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    return Guard(app, names)


class Guard:
    """Refuses requests that other web pages sent, and bodies that are too large."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if refused := self._refusal(scope):
            await _error(refused.status, refused.reason)(scope, receive, with_headers(send, _SECURED))
            return
        await self._app(scope, receive, with_headers(send, _SECURED))

    def _refusal(self, scope: Scope) -> Refusal | None:
        headers = Headers(scope=scope)
        if refused := host_refusal(headers, self._names, "FLAME_UI_NAMES"):
            return refused
        if scope["method"] in SAFE_METHODS:
            return None
        if refused := origin_refusal(headers):
            return refused
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return Refusal(411, "the request does not say how long its body is (Content-Length)")
        if int(length) > LARGEST_BODY:
            return Refusal(413, f"the body has {int(length):,} bytes; at most {LARGEST_BODY:,} are read")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        return None if kind == "application/json" else Refusal(415, f"send application/json, not {kind or 'nothing'}")


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)


def _status(error: FlameError) -> int:
    kinds = ((UnknownError, 404), (GateError, 409), (ResourceError, 503))
    return next((status for kind, status in kinds if isinstance(error, kind)), 400)


def _wrong_body(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    said = []
    for each in error.errors():
        if each["type"] == "json_invalid":
            said.append(f"the body is not JSON: {each['ctx']['error']}")
            continue
        place = ".".join(str(part) for part in each["loc"] if part not in ("body", "query"))
        said.append(f"{place or 'the body'}: {each['msg'].removeprefix('Value error, ')}")
    return _error(422, "; ".join(said))


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, f"{request.method} {request.url.path}: {error.detail}")


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _error(500, "the server failed; its log says why")
