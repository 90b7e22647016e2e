"""One request to a chat server.

Redirects are not followed, since they would carry the key elsewhere, and no proxy or `.netrc` of the environment is
used. An answer may take `timeout` seconds in all, so that a server that drips ends too, and at most 1 MB of it is read.
The key is taken out of whatever the server says about it.
"""

from __future__ import annotations

from dataclasses import replace

import aiohttp
from yarl import URL

from flame_core.captions.server.reply import Reply, read_reply
from flame_core.data.addresses.request import reason_of
from flame_core.loopback import is_loopback

LARGEST = 1 << 20  # bytes of an answer
_CONNECT = 10.0  # seconds
_PIECE = 1 << 16
_ERRORS = (TimeoutError, aiohttp.ClientError, OSError, ValueError, LookupError)


class ChatClient:
    """A session with the server at `address`, which ends in `/v1` as a rule."""

    def __init__(self, address: str, key: str | None, timeout: float) -> None:
        self.address = address
        self._url = URL(f"{address.rstrip('/')}/chat/completions")
        self._key = key
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=min(_CONNECT, timeout)),
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._session.close()

    async def ask(self, body: dict[str, object]) -> Reply:
        """What became of one request; no error of the network or the server is raised."""
        try:
            async with self._session.post(self._url, json=body, allow_redirects=False) as response:
                content = b""
                async for piece in response.content.iter_chunked(_PIECE):
                    content += piece
                    if len(content) > LARGEST:
                        response.close()
                        return Reply("too_large", status=response.status)
            return self._without_key(read_reply(response.status, response.headers, content))
        except _ERRORS as error:
            return Reply(_fault(error))

    def _without_key(self, reply: Reply) -> Reply:
        if not self._key:
            return reply
        hidden = {name: getattr(reply, name).replace(self._key, "***") for name in ("text", "message", "model")}
        return replace(reply, **hidden)


def is_readable_on_the_way(address: str) -> bool:
    """Whether what is sent to this address passes a network unencrypted."""
    url = URL(address)
    return url.scheme != "https" and not is_loopback(url.host or "")


def _fault(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionRefusedError):
        return "refused"
    reason = reason_of(error)
    return "reset" if reason == "bad_address" else reason
