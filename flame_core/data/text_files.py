"""Decodes text files strictly, never inserting a replacement character silently.

A byte order mark decides (UTF-8, UTF-16, UTF-32); without one the bytes must be in the expected encoding, UTF-8 by
default. `decode_text` accepts or refuses a whole file; `text_lines` reads a large file line by line, so that bytes that
cannot be decoded cost one row of a table and not the whole table.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

_MARKS = (  # the longer ones first: UTF-32's begins like UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class TextError(ValueError):
    """Bytes that are not text in the expected encoding; the message says where, and which encoding it may be."""


def encoding_of(content: bytes, expected: str = "utf-8") -> str:
    """The encoding named by a byte order mark at the start of `content`, or else the expected one."""
    return next((name for mark, name in _MARKS if content.startswith(mark)), expected)


def decode_text(content: bytes, expected: str = "utf-8") -> str:
    """The text in `content`, without a byte order mark.

    Raises:
        TextError: names the line and byte that cannot be decoded.
    """
    encoding = encoding_of(content, expected)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"line {line} is not {encoding}: byte 0x{content[error.start]:02x} at {error.start:,}"
    except UnicodeError as error:
        found = f"not {encoding}: {error}"
    if encoding.startswith("utf-8"):
        guess = "UTF-16 without a byte order mark" if b"\0" in content[:4096] else "cp1252 (Windows), perhaps"
        found += f"; it may be {guess}"
    raise TextError(found)


_UNDECODED = re.compile("[\udc80-\udcff]")  # undecodable bytes after `surrogateescape`; never in valid text
_HEAD = 4  # bytes of the longest mark


def undecoded(text: str) -> bool:
    """Whether a line of `text_lines` has bytes that are not in the file's encoding."""
    return not text.isascii() and _UNDECODED.search(text) is not None


def text_lines(path: Path, expected: str = "utf-8", *, longest: int = 1 << 24) -> Iterator[str]:
    """The lines of a text file with their original line ends; lines with undecodable bytes are `undecoded`.

    Raises:
        TextError: a line has more than `longest` characters, or decoding cannot continue (UTF-16, for example).
    """
    with path.open("rb") as file:
        encoding = encoding_of(file.read(_HEAD), expected)
    number = 0
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
        try:
            while line := file.readline(longest + 1):
                number += 1
                if len(line) > longest:
                    raise TextError(f"line {number} has more than {longest:,} characters")
                yield line
        except UnicodeError as error:
            raise TextError(f"what follows line {number} is not {encoding}: {error}") from None
