"""The search server that runs for a project, so that `flame query` can let it read a text: its LLM is loaded already.

A server writes its address to `.flame/search-server.json` and removes the file at its end; one that was killed leaves
it behind, and then nothing answers there. Only loopback addresses are asked.
"""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from flame_core.digest import write_json
from flame_core.layout import Layout
from flame_core.loopback import opener

log = logging.getLogger(__name__)
_SECONDS_TO_ANSWER, _SECONDS_TO_READ = 2, 120
_OWN = "http://127.0.0.1:"


def _file(layout: Layout) -> Path:
    return layout.state / "search-server.json"


@contextmanager
def announced(layout: Layout, port: int) -> Iterator[None]:
    """Say that a server listens on this port of this machine, until the context ends."""
    content = {"url": f"{_OWN}{port}"}
    layout.state.mkdir(parents=True, exist_ok=True)
    write_json(_file(layout), content)
    try:
        yield
    finally:
        if _read(layout) == content:  # not that of a server that started later
            _file(layout).unlink(missing_ok=True)


def read_by_server(layout: Layout, of_texts: str, kind: str, text: str) -> np.ndarray | None:
    """[K, D] of a text, read by a running server that has the same text side; None if there is none.

    Args:
        layout: of the project.
        of_texts: digest of the text side (`Model.of_texts`).
        kind: caption kind as which the text is read.
        text: to read.
    """
    url = (_read(layout) or {}).get("url")
    if not isinstance(url, str) or not url.startswith(_OWN):
        return None
    try:
        if _asked(f"{url}/api/model", None, _SECONDS_TO_ANSWER).get("of_texts") != of_texts:
            return None
        answer = _asked(f"{url}/api/encode", {"texts": [text], "facets": kind != "raw"}, _SECONDS_TO_READ)
        return np.atleast_2d(np.array(answer["texts"][0], np.float32))
    except (OSError, ValueError, LookupError) as error:
        log.info("the search server at %s did not read the text (%s)", url, error)
        return None


def _read(layout: Layout) -> dict[str, Any] | None:
    try:
        content = json.loads(_file(layout).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _asked(url: str, body: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    with opener(url).open(request, timeout=seconds) as answer:
        return json.load(answer)
