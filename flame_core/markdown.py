"""Escapes foreign texts for Markdown in MLflow and Dagster: they appear as written, without markup."""

from __future__ import annotations

import re

_MARKS = re.compile(r"([\\`*\[\]<>|~])")


def plain_text(value: object) -> str:
    """A text on one line, escaped so that nothing is a link, a picture, an element or the end of a table cell."""
    return _MARKS.sub(r"\\\1", " ".join(str(value).split()))


def code_span(value: object) -> str:
    """A text as inline code, fenced by more backticks than the longest run in it."""
    text = " ".join(str(value).split())
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest else ""
    return f"{fence}{space}{text}{space}{fence}"
