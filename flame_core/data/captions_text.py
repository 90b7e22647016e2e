"""Caption text: how to clean it, and when two captions count as the same.

A cleaned caption is one line in Unicode's composed form (NFC) without control characters, with HTML's character
references resolved; its words are not changed. Of invisible characters alone nothing is left.
Two captions are the same if they differ only in case, punctuation and spacing.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from html import unescape as html_unescape
from html.entities import html5

PRIMARY = "en"  # the language that decides about a pair, if the pair has captions in it
_GAPS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b\u2028\u2029]+")
_JOINERS = re.compile(r"[\u2060\ufeff]+")  # without a width, and between letters of one word
_INVISIBLE = {"Cf", "Zs"}  # what joins letters and sets their direction, and spaces
_UNSPACED = re.compile(  # Thai, Lao, Burmese, Khmer, kana, Han
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_AMPERSAND = r"(?:amp|AMP|#0*38|#[xX]0*26);"
_REFERENCE = re.compile(rf"&(?:{_AMPERSAND})*(#[0-9]{{1,7}};|#[xX][0-9a-fA-F]{{1,6}};|[A-Za-z][A-Za-z0-9]{{1,31}};)?")


def unescape(text: str) -> str:
    """`text` with HTML's character references resolved, however often it was escaped: `&amp;lt;` becomes `<`.

    A second call changes nothing. Only a known name or number that ends with `;` counts as a reference (`AT&T`,
    `?a=1&copy=2` and `&#0;` stay). The result is plain text: `&lt;b&gt;` becomes the characters `<b>`.
    """
    return _REFERENCE.sub(_characters, text) if "&" in text else text


def _characters(reference: re.Match[str]) -> str:
    name = reference[1] or ""
    found = html_unescape(f"&{name}") if name.startswith("#") else html5.get(name, "\ufffd")
    return f"&{name}" if found == "\ufffd" else found


def clean_caption(text: str, longest: int) -> tuple[str, bool]:
    """The cleaned text, of at most `longest` characters, and whether it was cut."""
    text = unicodedata.normalize("NFC", _GAPS.sub(" ", _JOINERS.sub("", unescape(text)))).strip()
    if all(unicodedata.category(letter) in _INVISIBLE for letter in text):
        return "", False
    return text[:longest].rstrip(), len(text) > longest


def is_blank(text: str) -> bool:
    """Whether cleaning leaves nothing of a caption."""
    return not clean_caption(text, 1)[0]


def clean_captions(captions: Mapping[str, Iterable[str]], longest: int) -> tuple[dict[str, list[str]], int]:
    """The cleaned captions by language (sorted), without empty and repeated ones, and how many were cut."""
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
    """The language whose captions decide about a pair: English, or the first language code if there is no English."""
    return PRIMARY if PRIMARY in captions else min(captions)


def word_count(text: str) -> float:
    """How many words a text has; in scripts without spaces between them, two letters count as one."""
    unspaced = len(_UNSPACED.findall(text))
    return len(_UNSPACED.sub(" ", text).split()) + unspaced / 2


def same_text(caption: str) -> str:
    """A form that is equal for equal captions; the caption itself if it is only punctuation."""
    return " ".join(unicodedata.normalize("NFKC", caption).casefold().translate(_WORDS).split()) or caption


class _Words(dict[int, str]):
    """For `str.translate`: maps punctuation, separators and control characters to spaces; filled on demand."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        self[code] = " " if unicodedata.category(letter)[0] in "PZC" else letter
        return self[code]


_WORDS = _Words()


def text_id(text: str) -> int:
    """A 64-bit hash of `text`: uniform, and the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
