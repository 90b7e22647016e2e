"""One request for one address, and what its answer means.

Nothing is followed here: a redirect is an answer, whose target is another request with checks of its own. The body is
read up to `max_bytes`, as it is on the wire: `Accept-Encoding: identity` is sent, and the body of a server that packs
it nevertheless is unpacked up to the same number of bytes. So is a robots.txt, which would allow everything otherwise.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from flame_core.data.addresses.attempts import OPTED_OUT
from flame_core.data.addresses.opt_out import TOKEN, OptOutLists, reserved
from flame_core.data.addresses.public_sockets import REFUSED, SocketCheck
from flame_core.version import PACKAGE, installed_version

LONGEST_ADDRESS = 4096
LONGEST_REST = 600.0  # seconds that `Retry-After` may ask for
_IN_MEMORY = 1 << 20  # bytes of a body; longer ones go to a file
_PIECE = 1 << 16
_ERRORS = (TimeoutError, aiohttp.ClientError, OSError, ValueError, LookupError)  # of a request for any address
_STATUS = {400: "gone", 404: "gone", 410: "gone", 451: "legal", 401: "forbidden", 403: "forbidden", 408: "timeout"}
_NO_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
_C_ARES_NO_NAME = {1, 4}  # ARES_ENODATA and ARES_ENOTFOUND


@dataclass
class Answer:
    """What became of a request.

    Attributes:
        reason: of `attempts.py`; None if there is a body.
        status, media_type, content_usage: of the answer, if there was one.
        target: where it redirects to.
        rest: seconds that the host asks to be left alone.
        body: the bytes, at their start; the caller closes it.
        bytes: received.
        named: what a list of opt-outs names, if it is neither the address that was asked for first nor its bytes.
    """

    reason: str | None
    status: int | None = None
    media_type: str | None = None
    content_usage: str | None = None
    target: str | None = None
    rest: float = 0.0
    body: IO[bytes] | None = None
    bytes: int | None = None
    named: str | None = None


@dataclass(frozen=True)
class SmallFile:
    """The answer to a request for a small text file; `rest`: as in `Answer`, None if the host does not ask for it."""

    status: int
    text: str
    rest: float | None = None


class Requester:
    """A session that asks for pictures."""

    def __init__(
        self,
        check: SocketCheck,
        *,
        contact: str | None,
        connect_s: float,
        read_s: float,
        total_s: float,
        max_bytes: int,
        heed_headers: bool,
        lists: OptOutLists,
        scratch: Path,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._check, self._max_bytes, self._heed, self._scratch = check, max_bytes, heed_headers, scratch
        self._lists = lists
        connector = aiohttp.TCPConnector(
            limit=0,
            ttl_dns_cache=3600,
            dns_cache_max_size=100_000,
            keepalive_timeout=5,
            socket_factory=check,
            resolver=resolver,
        )
        agent = f"{TOKEN}/{installed_version(PACKAGE) or '0'}" + (f" (+{contact})" if contact else "")
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=total_s, sock_connect=connect_s, sock_read=read_s),
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._session.close()

    def refusal(self, address: str) -> tuple[URL | None, str | None]:
        """An address in parts, or why it is not asked; also of the target of a redirect."""
        if len(address) > LONGEST_ADDRESS or any(ord(letter) < 0x20 or ord(letter) == 0x7F for letter in address):
            return None, "bad_address"
        url = url_of(address)
        if url is None or url.scheme not in ("http", "https") or not url.host or "\\" in address.partition("?")[0]:
            return None, "bad_address"
        if url.user is not None or url.password is not None:
            return None, "bad_address"
        if self._lists.names_address(address, url.host):
            return url, OPTED_OUT
        return url, None if self._check.may_use(url.port or 0) else "port_refused"

    async def text(self, url: URL, largest: int) -> SmallFile | str:
        """A small file, or the reason why there is no answer."""
        try:
            async with self._session.get(url, allow_redirects=True, max_redirects=5) as response:
                rest = _rest_asked(response)
                if rest is not None:
                    return SmallFile(response.status, "", rest)
                content, unpack = b"", _unpacker(response)
                while len(content) < largest and (piece := await response.content.read(largest)):
                    left = largest - len(content)
                    content += unpack.decompress(piece, left) if unpack else piece[:left]
                return SmallFile(response.status, content.decode("utf-8", "replace"))
        except zlib.error:
            return "reset"
        except _ERRORS as error:
            return reason_of(error)

    async def get(self, url: URL) -> Answer:
        """The answer to a request; the connection is free afterwards."""
        try:
            response = await self._session.get(url, allow_redirects=False)
        except _ERRORS as error:
            return Answer(reason_of(error))
        answer = Answer(
            None, response.status, _short(response.content_type), _short(response.headers.get("Content-Usage"))
        )
        try:
            answer.reason = self._of_header(response, answer)
            if answer.reason is None and answer.target is None:
                await self._read(response, answer)
        except _ERRORS as error:
            answer.reason = reason_of(error)
        finally:
            if answer.body is not None and answer.reason is not None:
                answer.body.close()
                answer.body = None
            response.release() if response.content.at_eof() else response.close()
        return answer

    def _of_header(self, response: aiohttp.ClientResponse, answer: Answer) -> str | None:
        status, headers = response.status, response.headers
        if self._heed:
            reason = reserved(headers.getall("X-Robots-Tag", []), headers.getall("tdm-reservation", []))
            if reason:
                return reason
        if status in (301, 302, 303, 307, 308) and "Location" in headers:
            answer.target = headers["Location"]
            return None
        rest = _rest_asked(response)
        if rest is not None:
            answer.rest = rest
            return "rate_limited"
        if status >= 500:
            return "http_5xx"
        if status != 200:
            return _STATUS.get(status, "http_status")
        if response.content_type in ("text/html", "application/xhtml+xml"):
            return "not_a_picture"
        return "too_large" if (response.content_length or 0) > self._max_bytes else None

    async def _read(self, response: aiohttp.ClientResponse, answer: Answer) -> None:
        unpack = _unpacker(response)
        answer.body = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self._scratch))  # noqa: SIM115
        received = 0
        async for piece in response.content.iter_chunked(_PIECE):
            received += len(piece)
            try:
                plain = unpack.decompress(piece, self._max_bytes + 1) if unpack else piece
            except zlib.error:
                answer.reason = "not_a_picture"
                return
            answer.body.write(plain)
            if max(received, answer.body.tell()) > self._max_bytes:
                answer.reason = "too_large"
                return
        answer.bytes = received
        answer.body.seek(0)


def _unpacker(response: aiohttp.ClientResponse) -> zlib._Decompress | None:
    """What unpacks the body of a server that packs it unasked."""
    packed = response.headers.get("Content-Encoding", "").lower() in ("gzip", "x-gzip", "deflate")
    return zlib.decompressobj(47) if packed else None  # gzip or zlib, by their header


def _rest_asked(response: aiohttp.ClientResponse) -> float | None:
    """The seconds that an answer asks to be left alone; None if it does not ask for that."""
    value = response.headers.get("Retry-After")
    asks = response.status == 429 or (response.status == 503 and value is not None)
    return seconds_to_rest(value) if asks else None


def url_of(address: str, base: URL | None = None) -> URL | None:
    """An address in parts, seen from `base` if that is given; None if it cannot be one."""
    try:
        url = base.join(URL(address)) if base else URL(address)
        return url
    except (ValueError, LookupError):  # yarl raises IndexError for `http://a@[`
        return None


def reason_of(error: BaseException) -> str:
    """The reason in the ledger for an error of a request."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return "tls"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return _of_name(error.os_error)
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ClientConnectorError):
        if REFUSED in str(error.os_error):
            return "address_refused"
        return "no_host" if isinstance(error.os_error, ConnectionRefusedError) else "reset"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "cut"
    if isinstance(error, aiohttp.InvalidURL):
        return "bad_address"
    if isinstance(error, aiohttp.ClientResponseError):  # an answer that is not HTTP
        return "reset"
    if isinstance(error, aiohttp.ClientError | OSError):
        return "reset"
    return "bad_address"


def _of_name(error: OSError) -> str:
    cause = error.__cause__ or error
    code = cause.args[0] if cause.args else None
    if isinstance(cause, socket.gaierror):
        return "no_host" if code in _NO_NAME else "dns_temporary"
    if isinstance(code, int) and code in _C_ARES_NO_NAME:
        return "no_host"
    return "dns_temporary"


def seconds_to_rest(value: str | None) -> float:
    """The seconds in `Retry-After`, a number or a date; a minute if it says neither."""
    text = (value or "").strip()
    if text.isdecimal():
        return min(float(text), LONGEST_REST)
    try:
        date = parsedate_to_datetime(text)
        date = date.replace(tzinfo=UTC) if date.tzinfo is None else date
        return min(max(0.0, (date - datetime.now(UTC)).total_seconds()), LONGEST_REST)
    except (TypeError, ValueError):
        return 60.0


def _short(text: str | None) -> str | None:
    return text and text.encode("utf-8", "replace").decode()[:200]
