"""Whether somebody asks not to be used: headers of an answer, and lists of those who asked elsewhere.

- `X-Robots-Tag`: all header lines. `name: directives` counts if the name is ours, `*` or absent; a directive with a
  value (`unavailable_after: 25 Jun 2030`, `max-snippet: 20`) is no name.
- `tdm-reservation: 1` (W3C's community protocol).
- Lists of addresses, hosts (with all below them), sha256 of bytes and pHash (`p:` and 16 hex digits), one per line. A
  line that begins with `#` is a comment. Addresses and hosts are compared in the form that is asked for:
  `xn--bcher-kva.de` for `bücher.de`, `https://a.com/~x` for `HTTPS://A.com:443/%7Ex#top`.

IETF's aipref is not settled, so its header `Content-Usage` is kept in `attempts.parquet` and nothing follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from yarl import URL

from flame_core.data.text_files import TextError, decode_text
from flame_core.errors import InputError
from flame_core.names import shown

TOKEN = "flame-mlops"  # our name in robots.txt, in X-Robots-Tag and in the user agent
WORDS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml", "none"})
_VALUED = frozenset({"unavailable_after", "max-image-preview", "max-snippet", "max-video-preview"})
_NAME = re.compile(r"\s*([A-Za-z0-9_.*/-]+)\s*:(.*)", re.DOTALL)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_PHASH = re.compile(r"p:([0-9a-fA-F]{16})")
_HOST = re.compile(r"(?:\*?\.)?([^\s/:@?#*%]+|\[?[0-9a-fA-F:.]+:[0-9a-fA-F:.]*\]?)")


def reserved(tags: Sequence[str], tdm: Sequence[str]) -> str | None:
    """The reason in the ledger if the lines of `X-Robots-Tag` or `tdm-reservation` opt out, else None."""
    if any(_directives(line) & WORDS for line in tags):
        return "x_robots_tag"
    return "tdm_reservation" if any(line.strip() == "1" for line in tdm) else None


def _directives(line: str) -> set[str]:
    """The directives of a line that are meant for us."""
    ours = True
    found: set[str] = set()
    for part in line.split(","):
        named = _NAME.match(part)
        if named and named[1].lower() not in _VALUED:
            ours = named[1].lower() in (TOKEN, "*")
            part = named[2]
        if ours:
            found.add(part.strip().lower())
    return found


@dataclass
class OptOutLists:
    """What the lists name; `urls` in the form of `normal_address`."""

    urls: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    sha256: set[str] = field(default_factory=set)
    hashes: set[int] = field(default_factory=set)

    def names_address(self, url: str, host: str | None) -> bool:
        """Whether an address, its host or a domain above it is named."""
        if self.urls and normal_address(url) in self.urls:
            return True
        name = _ascii(host) if host and self.hosts else ""
        while name:
            if name in self.hosts:
                return True
            name = name.partition(".")[2]
        return False

    def names(self, what: str) -> bool:
        """Whether an address, or `p:` and 16 hex digits, is named."""
        if found := _PHASH.fullmatch(what):
            return int(found[1], 16) in self.hashes
        try:
            return self.names_address(what, URL(what).host)
        except (ValueError, LookupError):  # as in `normal_address`
            return False


def read_lists(paths: Iterable[Path]) -> OptOutLists:
    """The content of such files.

    Raises:
        InputError: one cannot be read, or a line is nothing of all this; names it.
    """
    lists = OptOutLists()
    for path in paths:
        try:
            lines = decode_text(path.read_bytes()).splitlines()
        except (OSError, TextError) as error:
            raise InputError(f"{path}: {error}; it is named by opt_out.lists") from None
        for number, line in enumerate(map(str.strip, lines), start=1):
            if not line or line.startswith("#"):
                continue
            if _SHA256.fullmatch(line):
                lists.sha256.add(line.lower())
            elif found := _PHASH.fullmatch(line):
                lists.hashes.add(int(found[1], 16))
            elif "://" in line:
                lists.urls.add(normal_address(line))
            elif found := _HOST.fullmatch(line):
                lists.hosts.add(_ascii(found[1].strip("[]")))
            else:
                raise InputError(
                    f"{path}, line {number}: {shown(line)} is no address (https://...), host, sha256 or pHash (p: and "
                    "16 hex digits); it is in a file of opt_out.lists"
                )
    return lists


def normal_address(url: str) -> str:
    """The form in which an address is asked for; what is no address stays as it is.

    Scheme and host are in lower case, the usual port and the fragment are left out, and letters are percent-encoded
    only where they must be.
    """
    try:
        asked = URL(url)
        return str(asked.with_path(asked.raw_path, encoded=True, keep_query=True))  # `/` if there is none
    except (ValueError, LookupError):  # yarl raises IndexError for `http://[a]b@`
        return url


@lru_cache(maxsize=100_000)
def _ascii(host: str) -> str:
    """A host as the name system has it: in lower case, `xn--` for other letters, without a dot at its end."""
    try:
        return (URL.build(scheme="http", host=host).raw_host or host).rstrip(".").lower()
    except ValueError:  # no name that can be asked for
        return host.rstrip(".").lower()
