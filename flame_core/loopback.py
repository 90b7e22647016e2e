"""Requests to servers of this machine, which no proxy reaches: they are sent directly, whatever `http_proxy` names."""

from __future__ import annotations

import ipaddress
import urllib.request
from urllib.parse import urlsplit

from flame_core.settings import settings


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine, wherever it is asked."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def opener(url: str, *handlers: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
    """What opens an address: directly on loopback and where `flame ui` listens, others by the environment's proxy.

    Raises:
        ValueError: the address cannot be read.
    """
    host = urlsplit(url).hostname or ""
    direct = is_loopback(host) or host == settings().ui_host.lower()
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if direct else []), *handlers)
