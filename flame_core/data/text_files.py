"""Bytes that people wrote as text: decoded strictly, never with a replacement character put in silently.

A byte order mark decides (UTF-8, UTF-16, UTF-32); without one the bytes must be in the encoding that was asked for,
UTF-8 by default.
"""

from __future__ import annotations

import codecs

_MARKS = (  # the longer ones first: UTF-32's begins as UTF-16's does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class TextError(ValueError):
    """Bytes that are no text in the expected encoding; the message says where and in which encoding they may be."""


def encoding_of(content: bytes, expected: str = "utf-8") -> str:
    """The encoding that a byte order mark at the start of `content` names, or else the expected one."""
    return next((name for mark, name in _MARKS if content.startswith(mark)), expected)


def decode_text(content: bytes, expected: str = "utf-8") -> str:
    """The text in `content`, without a byte order mark.

    Raises:
        TextError: names the line and byte that do not fit.
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
