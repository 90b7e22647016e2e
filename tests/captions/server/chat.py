"""A chat server on loopback that fails in every way, in a thread of its own.

The last word of a prompt says what it does: `hang`, `drip`, `status-503`, ... With `-2` behind it, only twice; then it
answers as to any other prompt: with the prompt and the number of the picture's bytes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

MODEL, FINGERPRINT = "tiny-2026-11-01", "fp_7"
KEY = "sk-very-secret-0123456789"


def words(request: dict[str, Any]) -> str:
    """The prompt of a request."""
    content = request["messages"][-1]["content"]
    return content if isinstance(content, str) else next(part["text"] for part in content if part["type"] == "text")


def picture(request: dict[str, Any]) -> bytes | None:
    """The picture of a request."""
    content = request["messages"][-1]["content"]
    places = [] if isinstance(content, str) else [part["image_url"]["url"] for part in content if "image_url" in part]
    return base64.b64decode(places[0].partition("base64,")[2]) if places else None


def answer(text: str | None, **changes: Any) -> dict[str, Any]:
    """An answer of the protocol."""
    message = {"role": "assistant", "content": text} | changes.pop("message", {})
    return {
        "id": "x",
        "object": "chat.completion",
        "model": MODEL,
        "system_fingerprint": FINGERPRINT,
        "choices": [{"index": 0, "message": message, "finish_reason": changes.pop("finish", "stop")}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
    } | changes


@dataclass
class Chat:
    """The server; `say` changes the text of its answers, so that a second answer would be another one."""

    port: int = 0
    latency: float = 0.0
    say: str = "seen"
    key: str | None = KEY
    at_once: int | None = None  # requests, above which it answers 429
    log: list[str] = field(default_factory=list)  # prompts, in the order in which they came
    requests: list[dict[str, Any]] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)  # prompts, by whole answers with a text
    most_open: int = 0
    rejected: int = 0  # with 429
    _open: int = 0
    _failed: Counter[str] = field(default_factory=Counter)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                if not await self._one(lines[0].split()[1], headers, body, writer):
                    break
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, path: str, headers: dict, body: dict, writer: asyncio.StreamWriter) -> bool:
        prompt = words(body)
        self.log.append(prompt)
        self.requests.append(body)
        self._open += 1
        self.most_open = max(self.most_open, self._open)
        try:
            if path != "/v1/chat/completions":
                return self._send(writer, 404, {"detail": "Not Found"})
            if self.key and headers.get("authorization") != f"Bearer {self.key}":
                return self._send(writer, 401, _error(f"wrong key {headers.get('authorization')}", "invalid_api_key"))
            if self.at_once and self._open > self.at_once:
                self.rejected += 1
                return self._send(writer, 429, _error("slow down", "rate_limit_exceeded"))
            if self.latency:
                await asyncio.sleep(self.latency)
            return await self._answer(prompt, body, writer)
        finally:
            self._open -= 1

    async def _answer(self, prompt: str, body: dict, writer: asyncio.StreamWriter) -> bool:
        what = prompt.split()[-1]
        name, _, times = what.rpartition("-")
        if times.isdecimal() and len(times) == 1:
            self._failed[what] += 1
            what = name if self._failed[what] <= int(times) else ""
        match what:
            case "hang":
                await asyncio.sleep(30)
                return False
            case "drip":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(300):
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.1)
                return False
            case "cut":
                writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"choices": [{"mess')
                await writer.drain()
                return False
            case "reset":
                writer.transport.abort()
                return False
            case "truncated":
                return self._send(writer, 200, json.dumps(answer("x"))[:-20].encode())
            case "html":
                return self._send(writer, 200, b"<html>a gateway's page</html>", kind="text/html")
            case "stream":
                return self._send(writer, 200, b'data: {"choices": []}\n\ndata: [DONE]\n\n', kind="text/event-stream")
            case "nothing":
                return self._send(writer, 200, {"choices": []})
            case "nonsense":
                return self._send(writer, 200, {"choices": {"message": 3}, "usage": [1], "model": 7})
            case "huge":
                return self._send(writer, 200, answer("long " * 1_000_000))
            case "empty":
                return self._send(writer, 200, answer("", finish="length"))
            case "null":
                return self._send(writer, 200, answer(None))
            case "filtered":
                return self._send(writer, 200, answer("par", finish="content_filter"))
            case "declined":
                return self._send(writer, 200, answer(None, message={"refusal": "I cannot help with that."}))
            case "routed":
                return self._send(writer, 200, {"error": {"message": "provider is down", "code": 502}})
            case "moved":
                return self._send(writer, 302, {}, Location="http://127.0.0.2:1/elsewhere")
            case "rests":
                return self._send(writer, 429, _error("slow down", "rate_limit_exceeded"), **{"Retry-After": "1"})
            case "quota":
                return self._send(writer, 429, _error("You exceeded your quota.", "insufficient_quota"))
            case _ if what.startswith("status-"):
                return self._send(writer, int(what[7:]), _error(f"no: {KEY}", "said_so"))
        seen = picture(body)
        self.answered[prompt] += 1
        return self._send(writer, 200, answer(f"{self.say} {prompt} {len(seen) if seen else 'without'}"))

    def _send(self, writer, status: int, content: Any, kind: str = "application/json", **headers: str) -> bool:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        return True


def _error(message: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "code": code}}


@contextmanager
def chat_server(**options: Any) -> Iterator[Chat]:
    """The server, while the block runs."""
    chat = Chat(**options)
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def main() -> None:
        server = await asyncio.start_server(chat.serve, "127.0.0.1", 0)
        chat.port = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            await asyncio.Event().wait()

    def run() -> None:
        with suppress(asyncio.CancelledError, RuntimeError):
            loop.run_until_complete(main())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield chat
    finally:

        def stop() -> None:
            for task in asyncio.all_tasks(loop):
                task.cancel()

        loop.call_soon_threadsafe(stop)
        thread.join(10)
        loop.close()
