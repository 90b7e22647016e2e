"""A stand-in of the hub's HTTP API on loopback, for one data set: `HF_ENDPOINT` leads to it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REPO = "made/pairs"
TOKEN = "hf_made_up_token"


@dataclass
class Hub:
    """Commits of a data set, {commit: {path: bytes}}, and branches, {name: commit}; it fails as its fields say."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    licence: str | None = "cc-by-4.0"
    plain: set[str] = field(default_factory=set)  # paths that are not LFS
    gated: bool = False  # without `TOKEN`
    cut: dict[str, int] = field(default_factory=dict)  # path: how often a body ends in its middle
    swapped: set[str] = field(default_factory=set)  # paths whose bytes are others than listed
    down: bool = False
    log: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    address: str = ""

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit to a branch; returns its hash."""
        name = hashlib.sha1(b"".join(p.encode() + c for p, c in sorted(files.items()))).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        return name

    def fetched(self, path: str) -> int:
        """How often a file was asked for."""
        return sum(line.startswith("GET") and line.endswith(f"/{path}") for line in self.log)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format, *args):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.log.append(f"{self.command} {path}")
        token = self.headers.get("Authorization")
        hub.tokens.add(token)
        if hub.down:
            return self._send(503, b"down")
        if f"/{REPO}/" not in path:
            return self._send(401, b"{}", **{"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        if hub.gated and token != f"Bearer {TOKEN}":
            return self._send(403, b"{}", **{"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        kind, rest = path.split(f"/{REPO}/", 1)[1].split("/", 1)
        revision, _, name = rest.partition("/")
        commit = hub.branches.get(revision, revision)
        if commit not in hub.commits:
            return self._send(404, b"{}", **{"X-Error-Code": "RevisionNotFound"})
        files = hub.commits[commit]
        if kind == "revision":
            about = {"id": REPO, "sha": commit, "cardData": {"license": hub.licence}, "siblings": [], "tags": []}
            return self._send(200, json.dumps(about).encode())
        if kind == "tree":
            return self._send(200, json.dumps([self._entry(p, c) for p, c in sorted(files.items())]).encode())
        if name not in files:
            return self._send(404, b"{}", **{"X-Error-Code": "EntryNotFound"})
        self._file(name, files[name], commit, body)

    def _entry(self, path: str, content: bytes) -> dict:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry = {"type": "file", "path": path, "size": len(content), "oid": blob}
        if path not in self.hub.plain:
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry

    def _file(self, name: str, content: bytes, commit: str, body: bool) -> None:
        etag = hashlib.sha256(content).hexdigest()
        if name in self.hub.swapped:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start, status = 0, 200
        if (span := self.headers.get("Range", "")).startswith("bytes="):
            start, status = int(span[6:].split("-")[0]), 206
        part = content[start:]
        self.send_response(status)
        for header, value in {
            "X-Repo-Commit": commit,
            "ETag": f'"{etag}"',
            "X-Linked-Etag": f'"{etag}"',
            "X-Linked-Size": str(len(content)),
            "Content-Length": str(len(part)),
            "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}",
            "Accept-Ranges": "bytes",
        }.items():
            self.send_header(header, value)
        self.end_headers()
        if not body:
            return
        if self.hub.cut.get(name, 0) > 0:
            self.hub.cut[name] -= 1
            self.wfile.write(part[: len(part) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(part)

    def _send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def stand_in() -> Iterator[Hub]:
    """The stand-in, while the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
