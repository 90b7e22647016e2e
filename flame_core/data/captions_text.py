"""Caption text: how it is cleaned, and when two captions count as the same.

A cleaned caption is one line in Unicode's composed form without control characters; its words are the source's own.
Two captions are the same when they agree apart from case, punctuation and spacing.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping

_GAPS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\u2060\ufeff]+")


def clean_caption(text: str, longest: int) -> tuple[str, bool]:
    """The cleaned text, of at most `longest` characters, and whether it was cut."""
    text = unicodedata.normalize("NFC", _GAPS.sub(" ", text)).strip()
    return text[:longest].rstrip(), len(text) > longest


def clean_captions(captions: Mapping[str, Iterable[str]], longest: int) -> tuple[dict[str, list[str]], int]:
    """All captions cleaned, by sorted language, without empty and repeated ones; and how many were cut."""
    cleaned: dict[str, list[str]] = {}
    cuts = 0
    for language, texts in sorted(captions.items()):
        kept: dict[str, None] = {}
        for text in texts:
            caption, cut = clean_caption(text, longest)
            if caption and caption not in kept:
                kept[caption] = None
                cuts += cut
        if kept:
            cleaned[language] = list(kept)
    return cleaned, cuts


def primary_language(captions: Mapping[str, list[str]]) -> str:
    """The language whose captions decide about a pair: English, or the first by code where there is none."""
    return "en" if "en" in captions else min(captions)


def same_text(caption: str) -> str:
    """What equal captions have in common; the caption itself where it is nothing but punctuation."""
    return " ".join(unicodedata.normalize("NFKC", caption).casefold().translate(_WORDS).split()) or caption


class _Words(dict[int, str]):
    """For `str.translate`: punctuation, separators and control characters to spaces. Fills as characters are met."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        self[code] = " " if unicodedata.category(letter)[0] in "PZC" else letter
        return self[code]


_WORDS = _Words()


def text_id(text: str) -> int:
    """64 bits of a hash of `text`: uniform, and the same everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
