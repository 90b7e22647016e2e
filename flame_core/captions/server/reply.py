"""What the answer of a chat server means.

| reason | asked again |
|---|---|
| `refused` (the connection), `reset`, `timeout`, `dns_temporary`, `no_host`, `cut` | yes |
| `http_5xx`, `not_json`, `no_choices` | yes |
| `rate_limited` (429; 503 with Retry-After) | yes, when the server has rested |
| `rejected` (400 and other 4xx: the server's message is kept) | no |
| `content_filter`, `declined`, `no_text`, `too_large` | no |

Some answers concern every request: a wrong key, no credit left, an address or a model that is not there. These stop the
stage (`STOPS`), with the server's message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flame_core.captions.generation import clean
from flame_core.captions.subject import fold
from flame_core.data.addresses.request import seconds_to_rest

PASSING = frozenset(
    {"refused", "reset", "timeout", "dns_temporary", "no_host", "cut", "http_5xx", "not_json", "no_choices"}
    | {"rate_limited"}
)
STOPS = frozenset({"key", "credit", "address", "tls"})
_PASSING_STATUS = {408: "timeout", 409: "http_5xx", 425: "http_5xx"}
_MESSAGE = 300  # characters of a server's message that are kept
_NAME = 100  # of a model's name and fingerprint


@dataclass(frozen=True)
class Reply:
    """What became of a request.

    Attributes:
        reason: None: there is a text.
        text: as the server wrote it.
        message: what the server said about an error, on one line.
        model, fingerprint, finish: that the answer names.
        rest: seconds that the server asks to be left alone; None if it does not say.
    """

    reason: str | None = None
    text: str = ""
    status: int | None = None
    message: str = ""
    model: str = ""
    fingerprint: str = ""
    finish: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    rest: float | None = None


def read_reply(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """The meaning of a whole answer; its content type is not looked at, since servers differ in it."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if status != 200:
        return _error(status, headers, content, body)
    if not isinstance(content, dict):
        return Reply("not_json", status=status, message=_line(body))
    if content.get("error"):  # routers answer so with the status 200
        code = _dict(content["error"]).get("code")
        status = code if isinstance(code, int) and 400 <= code < 600 else 500
        return _error(status, headers, content, body)
    return _answer(content)


def _answer(content: dict[str, Any]) -> Reply:
    choices = content.get("choices")
    choice = _dict(choices[0]) if isinstance(choices, list) and choices else {}
    message, usage = _dict(choice.get("message")), _dict(content.get("usage"))
    text = _text(message.get("content"))
    finish = _name(choice.get("finish_reason"))
    reason = None
    if not message:
        reason = "no_choices"
    elif finish == "content_filter":
        reason = "content_filter"
    elif not clean(text):
        reason = "declined" if message.get("refusal") else "no_text"
    return Reply(
        reason,
        text,
        200,
        _line(message["refusal"]) if isinstance(message.get("refusal"), str) else "",
        _name(content.get("model")),
        _name(content.get("system_fingerprint")),
        finish,
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
    )


def _error(status: int, headers: Mapping[str, str], content: Any, body: bytes) -> Reply:
    error = _dict(content).get("error", content)
    said = error if isinstance(error, str) else _dict(error).get("message", _dict(error).get("detail"))
    message = _line(said if isinstance(said, str) else body)
    code = _name(_dict(error).get("code")) or _name(_dict(error).get("type"))
    rest = seconds_to_rest(headers["Retry-After"]) if "Retry-After" in headers else None
    if status == 429 and code == "insufficient_quota":
        return Reply("credit", status=status, message=message)
    if status == 429 or (status == 503 and rest is not None):
        return Reply("rate_limited", status=status, message=message, rest=rest)
    if status >= 500:
        return Reply("http_5xx", status=status, message=message)
    if status in _PASSING_STATUS:
        return Reply(_PASSING_STATUS[status], status=status, message=message)
    if status < 400 or status == 405:
        return Reply("address", status=status, message=message)
    reason = {401: "key", 402: "credit"}.get(status, "rejected")
    return Reply(reason, status=status, message=message)


def _text(content: Any) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in map(_dict, content) if isinstance(part.get("text"), str))
    return content.encode("utf-8", "replace").decode() if isinstance(content, str) else ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _line(said: str | bytes) -> str:
    text = said[: 4 * _MESSAGE].decode("utf-8", "replace") if isinstance(said, bytes) else said[: 4 * _MESSAGE]
    return fold(text)[:_MESSAGE]


def _name(value: Any) -> str:
    return fold(value[:_NAME]) if isinstance(value, str) else ""


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else None
