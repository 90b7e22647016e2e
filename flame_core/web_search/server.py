"""Runs the search server until a stop signal."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence

import uvicorn

from flame_core.errors import FlameError, ResourceError
from flame_core.layout import Layout
from flame_core.search.ask import Searcher
from flame_core.search.galleries import HELD_OUT
from flame_core.settings import settings
from flame_core.web_origin import LOOPBACK, host_names
from flame_core.web_search.app import create_app
from flame_core.web_search.running import announced
from flame_core.web_search.service import SearchService

log = logging.getLogger(__name__)


def serve(
    layout: Layout, searcher: Searcher, indexes: Sequence[str], host: str, port: int, ready: Callable[[str], None]
) -> None:
    """Answer until SIGTERM or Ctrl-C.

    Args:
        layout: of the project.
        searcher: holds the model.
        indexes: what can be searched.
        host: address to listen on.
        port: of it; 0 takes a free one.
        ready: is called with the URL once the server listens.

    Raises:
        ResourceError: the port is taken.
        FlameError: the model or the first index cannot be used.
    """
    service = SearchService(searcher, list(indexes) or [HELD_OUT])
    service.open()
    if host not in (*LOOPBACK, "::1"):
        log.warning("listening on %s: the server has no login, so all who reach it can search these pictures", host)
    listening = _listen(host, port)
    own = listening.getsockname()[1]
    app = create_app(service, host_names(host, settings().ui_names))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", log_config=None, lifespan="off"))
    loading = threading.Thread(target=_load_texts, args=(service,), daemon=True)
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with listening, announced(layout, own):
            loading.start()
            ready(f"http://{f'[{host}]' if ':' in host else host}:{own}/")
            server.run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn passes the signal on once it has answered what it was asked
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
    if loading.is_alive():  # in torch's code: it would abort the process when Python ends below it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, TypeError, UnicodeError) as error:
        raise ResourceError(f"cannot listen on {host}:{port} ({error}); --port takes another") from None


def _load_texts(service: SearchService) -> None:
    """Load what reads texts, beside the server; what is missing is said again to those who ask with a text."""
    try:
        service.load_texts()
    except FlameError as error:
        log.warning("texts cannot be read: %s", error)
