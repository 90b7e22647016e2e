"""Addresses of tracking stores: quoted so that any path can be read back, and shown without secrets.

    sqlite+pysqlite:////home/ada/what%3F/.flame/mlflow/mlflow.db    a path with `?`, `#` or `%`
    http://ada:secret@mlflow.example:5000                   the rest of the project sees it without `ada:secret@`

This module imports only the standard library.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

_SQLITE = ("sqlite:///", "sqlite+pysqlite:///")  # equivalent for SQLAlchemy
_SPECIAL = re.compile(r"[%?#]")  # characters that SQLAlchemy would not read as part of the path
_POSTGRES = re.compile(r"postgres(?:ql)?://", re.IGNORECASE)
POSTGRES = "postgresql+psycopg2://"  # with the driver that the extra `postgres` installs
_LOGIN = re.compile(r"(?<=://)[^/\s'\"]*@")


def sqlite_address(database: Path) -> str:
    """The address of a SQLite file.

    For a `sqlite:` address MLflow creates the folder, but does not unquote its path. If the path needs quoting, the
    address therefore names the driver too; then MLflow does not create the folder.
    """
    quoted = _SPECIAL.sub(lambda match: quote(match[0], safe=""), str(database))
    return (_SQLITE[0] if quoted == str(database) else _SQLITE[1]) + quoted


def sqlite_path(address: str) -> Path | None:
    """The file of a SQLite address; None for any other address."""
    for head in _SQLITE:
        if address.startswith(head):
            return Path(unquote(address.removeprefix(head).partition("?")[0]))
    return None


def lacks_driver(address: str) -> bool:
    """Whether a PostgreSQL address names no driver. SQLAlchemy 2.1 then wants psycopg 3, even if psycopg2 is there."""
    return _POSTGRES.match(address) is not None


def is_server(address: str) -> bool:
    """Whether the address is an MLflow server's, reached by HTTP."""
    return address.startswith(("http://", "https://"))


def without_login(address: str) -> str:
    """An address that may be shown and stored: without user, password and options (which may hold a password).

    Raises:
        ValueError: it is unclear where the password ends; the message does not contain the address.
    """
    if address.startswith(_SQLITE) or "://" not in address:
        return address
    parts = urlsplit(address)
    _ = parts.port  # raises if it is not a number, such as the rest of a password
    if "@" in parts.path:
        raise ValueError("there is an @ in its path")
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def login(address: str) -> tuple[str, str] | None:
    """User and password in an address; None if it has none."""
    if "://" not in address:
        return None
    parts = urlsplit(address)
    if parts.username is None and parts.password is None:
        return None
    return unquote(parts.username or ""), unquote(parts.password or "")


def without_secrets(text: str, address: str | None) -> str:
    """A text, such as a library's error, without any logins in addresses and without the password of `address`."""
    text = _LOGIN.sub("", text)
    found = login(address) if address else None
    if address and found and found[1]:
        raw = urlsplit(address).password or ""
        for secret in {found[1], raw, quote(found[1], safe="")}:
            text = text.replace(secret, "***")
    return text
