"""Corrects `a` and `an` in English captions by the sound that follows: `A orange circle` becomes `An orange circle`.

Words are judged by their first letters and short lists of exceptions. A word that may be spelled out (`US`, `X-ray`) or
has an h that some speak and others do not (`historic`) keeps its article.
"""

from __future__ import annotations

import re

_ARTICLE = re.compile(r"(?:^([Aa])|\b(a))(n?) (?=([^\W\d_]+))")  # a capital only at the start: `vitamin A is`
_VOWELS = "aeiou"
_SPOKEN_AS_CONSONANT = re.compile(
    r"eu|ewe|once\b|ones?\b|uni(?!n|m|d)|uk|ura|uri|usa|use|usu|uten|uti|uto|ubiq", re.IGNORECASE
)  # yoo and won
_SPOKEN_AS_VOWEL = re.compile(r"hour|honest|honou?r|heir", re.IGNORECASE)  # a silent h


def corrected(text: str) -> str:
    """The text with `a` before a vowel sound and `an` before a consonant, where the word leaves no doubt."""
    return _ARTICLE.sub(_article, text)


def _article(match: re.Match[str]) -> str:
    vowel = starts_with_vowel(match[4])
    article = match[1] or match[2]
    return f"{article}{match[3] if vowel is None else 'n' if vowel else ''} "


def starts_with_vowel(word: str) -> bool | None:
    """Whether a word begins with a vowel sound; None if that is in doubt."""
    if len(word) < 2 or word[1:] != word[1:].lower() or not word.isascii():
        return None
    if _SPOKEN_AS_VOWEL.match(word):
        return True
    if word[0] in "hH":
        return None
    return word[0].lower() in _VOWELS and not _SPOKEN_AS_CONSONANT.match(word)
