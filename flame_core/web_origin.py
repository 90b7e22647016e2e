"""Which requests a server without a login refuses, because another web page may have made the browser send them.

Any page that a person has open can send requests to servers on that person's machine, and can make its own host name
resolve to 127.0.0.1 (DNS rebinding). Browsers say where a request comes from, so these are refused:

- a `Host` that is not one of the server's names;
- a request that may change something, from another origin: `Origin` is not the `Host`'s, or `Sec-Fetch-Site` is neither
  `same-origin` nor `none`.

Programs other than browsers send neither header and are allowed; they already run on this machine, or came through a
proxy with a login.

References: https://owasp.org/www-community/attacks/csrf, https://www.w3.org/TR/fetch-metadata/
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Send

from flame_core.settings import EVERYWHERE

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# No page may show the server's own in a frame (clickjacking) or read its answers.
HEADERS = {
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")


@dataclass(frozen=True)
class Refusal:
    """An HTTP status and the reason."""

    status: int
    reason: str


def host_names(listens_at: str, more: Collection[str] = ()) -> frozenset[str]:
    """The host names that the server accepts: loopback, the name it listens on, and further ones for a proxy."""
    return frozenset((*LOOPBACK, *(_name(given.lower()) for given in (listens_at, *more) if given not in EVERYWHERE)))


def host_refusal(headers: Headers, names: Collection[str], setting: str) -> Refusal | None:
    """Why a request to this `Host` is refused, or None; `setting` can add names."""
    hosts = headers.getlist("host")
    found = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
    if found is None or found["name"] not in names:
        return Refusal(421, f"Host {', '.join(hosts)!r} is not a name of this server; {setting} can add names")
    return None


def origin_refusal(headers: Headers) -> Refusal | None:
    """Why a request that may change something is refused, or None; its one `Host` is known to be ours."""
    if elsewhere := _other_origin(headers, headers["host"]):
        return Refusal(
            403, f"this request comes from another origin ({elsewhere}), or a proxy did not pass its Host on"
        )
    return None


def with_headers(send: Send, more: Mapping[str, str]) -> Send:
    """`send`, with these headers in every answer."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in more.items():
                headers[name] = value
        await send(message)

    return sending


def _name(given: str) -> str:
    """A name as in the `Host` of requests, without a port; an IPv6 address in brackets."""
    found = _HOST.fullmatch(given)
    return found["name"] if found else f"[{given}]"


def _other_origin(headers: Headers, host: str) -> str | None:
    """The header that names an origin other than this server's; None if there is none."""
    for origin in headers.getlist("origin"):
        if origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            return f"Origin: {origin}"
    for site in headers.getlist("sec-fetch-site"):
        if site not in ("same-origin", "none"):
            return f"Sec-Fetch-Site: {site}"
    return None
