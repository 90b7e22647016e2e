"""Addresses of tracking stores: written so that any path is read back as itself, and shown without what is secret.

    sqlite+pysqlite:////home/ada/what%3F/.flame/mlflow/mlflow.db    a path with `?`, `#` or `%`
    http://ada:secret@mlflow.example:5000                   known to the rest of the project without `ada:secret@`

Nothing but the standard library is imported here: `mlflow/server.sh` asks this module.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

_SQLITE = ("sqlite:///", "sqlite+pysqlite:///")  # the same to SQLAlchemy
_SPECIAL = re.compile(r"[%?#]")  # what SQLAlchemy would take for a part of the address other than the path
_LOGIN = re.compile(r"(?<=://)[^/\s'\"]*@")


def sqlite_address(database: Path) -> str:
    """The address of a SQLite file.

    Of a `sqlite:` address MLflow makes the folder itself, and takes a quoted path as it stands for its name; where a
    path has to be quoted, the driver is named too, and MLflow leaves that to us.
    """
    quoted = _SPECIAL.sub(lambda match: quote(match[0], safe=""), str(database))
    return (_SQLITE[0] if quoted == str(database) else _SQLITE[1]) + quoted


def sqlite_path(address: str) -> Path | None:
    """The file of a SQLite address; None of any other address."""
    for head in _SQLITE:
        if address.startswith(head):
            return Path(unquote(address.removeprefix(head).partition("?")[0]))
    return None


def is_server(address: str) -> bool:
    """Whether MLflow's own server is asked, by HTTP."""
    return address.startswith(("http://", "https://"))


def without_login(address: str) -> str:
    """An address that may be shown and stored: no user, no password, no options (which may hold one).

    Raises:
        ValueError: it cannot be told where the password ends; the message does not hold the address.
    """
    if address.startswith(_SQLITE) or "://" not in address:
        return address
    parts = urlsplit(address)
    _ = parts.port  # raises for what is no number, such as the rest of a password
    if "@" in parts.path:
        raise ValueError("there is an @ in its path")
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def login(address: str) -> tuple[str, str] | None:
    """User and password in an address."""
    if "://" not in address:
        return None
    parts = urlsplit(address)
    if parts.username is None and parts.password is None:
        return None
    return unquote(parts.username or ""), unquote(parts.password or "")


def without_secrets(text: str, address: str | None) -> str:
    """A text, such as a library's error, without the logins of addresses and without the password of this one."""
    text = _LOGIN.sub("", text)
    found = login(address) if address else None
    if address and found and found[1]:
        raw = urlsplit(address).password or ""
        for secret in {found[1], raw, quote(found[1], safe="")}:
            text = text.replace(secret, "***")
    return text
