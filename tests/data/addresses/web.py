"""A web server on loopback that fails in every way, in a thread of its own.

Each path says what it does: `/ok/7`, `/status/404/7`, `/cut/7`. Addresses of 127.0.0.0/8 are different hosts of it.
"""

from __future__ import annotations

import asyncio
import gzip
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import unquote

from tests.data.drawings import png

HOSTS = [f"127.0.0.{number}" for number in range(1, 9)]
PAGE = b"<!doctype html><html>not here</html>"


@cache
def bomb() -> bytes:
    """200 MB of zeros, packed."""
    return gzip.compress(bytes(200_000_000), 1)


@dataclass
class Web:
    """The server. When `mended`, all paths answer with a picture whatever they say; `down` answers 503 to everything.

    `/last/7` answers when `awaited` paths have been asked for. The first `refused` requests for robots.txt get
    `refusal`: a status, and Retry-After if that is not empty.
    """

    port: int = 0
    latency: float = 0.0
    log: list[tuple[str, str]] = field(default_factory=list)  # (host, path), robots.txt included
    times: dict[str, list[float]] = field(default_factory=dict)  # by path
    headers: dict[str, str] = field(default_factory=dict)  # of the last request
    robots: str | None = None
    packs: bool = False  # robots.txt, unasked
    refused: int = 0
    refusal: tuple[int, str] = (503, "")
    mended: bool = False
    down: bool = False
    awaited: int = 0
    limited: set[str] = field(default_factory=set)  # hosts that have asked for their rest
    most_open: Counter[str] = field(default_factory=Counter)
    _open: Counter[str] = field(default_factory=Counter)

    def url(self, path: str, host: str = HOSTS[0]) -> str:
        return f"http://{host}:{self.port}{path}"

    def asked(self, part: str = "") -> list[str]:
        """Paths of pictures that were asked for."""
        return [path for _, path in self.log if part in path and path != "/robots.txt"]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = writer.get_extra_info("sockname")[0]
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                lines = request.decode("latin-1").split("\r\n")
                path = lines[0].split()[1]
                self.headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
                self.log.append((host, path))
                self.times.setdefault(path, []).append(time.monotonic())
                self._open[host] += 1
                self.most_open[host] = max(self.most_open[host], self._open[host])
                try:
                    if self.latency:
                        await asyncio.sleep(self.latency)
                    if not await self.answer(path, host, writer):
                        break
                finally:
                    self._open[host] -= 1
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, path: str, host: str, writer: asyncio.StreamWriter) -> bool:
        """Answer, and say whether the connection stays open."""

        def send(status: int, body: bytes = b"", kind: str = "image/png", **more: str) -> bool:
            names = {"Content-Type": kind, "Content-Length": str(len(body))}
            names |= {name.replace("_", "-"): value for name, value in more.items()}
            head = "".join(f"{name}: {value}\r\n" for name, value in names.items())
            writer.write(f"HTTP/1.1 {status} x\r\n{head}\r\n".encode("latin-1") + body)
            return True

        kind, *rest = path.strip("/").split("?")[0].split("/")
        if self.down:
            return send(503)
        if path == "/robots.txt":
            if len(self.times[path]) <= self.refused:
                status, rest_asked = self.refusal
                return send(status, b"", "text/plain", **({"Retry_After": rest_asked} if rest_asked else {}))
            if self.robots is None:
                return send(404)
            if self.packs:
                return send(200, gzip.compress(self.robots.encode()), "text/plain", Content_Encoding="gzip")
            return send(200, self.robots.encode(), "text/plain")
        number = int(rest[-1]) if rest and rest[-1].isdecimal() else 0
        if self.mended or kind == "ok":
            return send(200, png(number))
        match kind:
            case "status":
                return send(int(rest[0]))
            case "once":  # 503, then a picture
                return send(503) if len(self.times[path]) == 1 else send(200, png(number))
            case "last":
                while len(self.asked()) < self.awaited:
                    await asyncio.sleep(0.02)
                return send(200, png(number))
            case "limit":
                if host not in self.limited:
                    self.limited.add(host)
                    return send(429, Retry_After=rest[0])
                return send(200, png(number))
            case "redirect":  # /redirect/<times>/<number>
                left = int(rest[0])
                return send(302, Location=f"/redirect/{left - 1}/{number}" if left > 1 else f"/ok/{number}")
            case "to":
                return send(302, Location=unquote(path.partition("?")[2]))
            case "page":
                return send(200, PAGE, "text/html")
            case "lie":  # a page that says it is a picture
                return send(200, PAGE)
            case "plain":  # a picture that says it is text
                return send(200, png(number), "text/plain")
            case "empty":
                return send(200)
            case "cut":
                writer.write(b"HTTP/1.1 200 x\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\n" + png(1)[:50])
                return False
            case "reset":
                writer.transport.abort()
                return False
            case "drip":
                writer.write(b"HTTP/1.1 200 x\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\n")
                while not writer.is_closing():
                    writer.write(b"\x89")
                    await writer.drain()
                    await asyncio.sleep(0.1)
                return False
            case "silent":
                await asyncio.sleep(60)
                return False
            case "huge":  # says so
                writer.write(b"HTTP/1.1 200 x\r\nContent-Type: image/png\r\nContent-Length: 9000000000\r\n\r\n")
                return False
            case "endless":  # does not say so
                writer.write(b"HTTP/1.1 200 x\r\nContent-Type: image/png\r\n\r\n" + png(1))
                while not writer.is_closing():
                    writer.write(bytes(1 << 16))
                    await writer.drain()
                return False
            case "gzip":
                return send(200, gzip.compress(png(number), mtime=0), Content_Encoding="gzip")
            case "bomb":
                return send(200, bomb(), Content_Encoding="gzip")
            case "noai":
                return send(200, png(number), X_Robots_Tag=rest[0].replace("%20", " "))
            case "tdm":
                return send(200, png(number), tdm_reservation="1")
            case "usage":
                return send(200, png(number), Content_Usage="train-ai=n")
        return send(404)


@contextmanager
def running(**values: object) -> Iterator[Web]:
    """The server, on a free port."""
    web, loop = Web(**values), asyncio.new_event_loop()  # type: ignore[arg-type]
    started = threading.Event()
    servers: list[asyncio.Server] = []

    async def start() -> None:
        server = await asyncio.start_server(web.serve, HOSTS[0], 0, limit=1 << 20, backlog=1000)
        web.port = server.sockets[0].getsockname()[1]
        servers.extend([server, await asyncio.start_server(web.serve, HOSTS[1:], web.port, backlog=1000)])
        started.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield web
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        for server in servers:
            server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()
