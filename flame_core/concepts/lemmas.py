"""The one normaliser of captions and concepts: a text becomes lemmas.

NFKC, case folding, words of letters, digits, marks and internal hyphens, then the lemma of each word by simplemma's
dictionary. A word with a digit stays as it is (`737-200`), of a word with hyphens the last part is lemmatised
(`hot-dogs` is `hot-dog`), and the English possessive `'s` is dropped. Both sides go through this module only, so a
concept finds its captions whatever their case and number. `identity` says what the lemmas depend on.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from flame_core.digest import value_digest
from flame_core.errors import ParamsError
from flame_core.language_names import without_variant

VERSION = 1  # of the rules in this module
UNKNOWN, BREAK = -1, -2  # in place of a lemma's number: not in the vocabulary, the end of a text
_NOTHING = -3  # what held no letter or digit
_BREAK = "|"  # no letter, so it is in no folded text
_POSSESSIVE = re.compile(r"'s\b")
_KEPT = "-'"
_AS_ASCII = {"’": "'", "ʼ": "'", "‐": "-"}


class _Letters(dict[int, str]):
    """For `str.translate`: letters, digits and marks stay, format characters go, the rest becomes a space."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        kind = unicodedata.category(letter)
        if letter in _KEPT or kind[0] in "LNM":
            self[code] = letter
        else:
            self[code] = _AS_ASCII.get(letter, "" if kind == "Cf" else " ")
        return self[code]


_LETTERS = _Letters()


def lemmas(text: str, language: str) -> tuple[str, ...]:
    """The lemmas of a text in order; none if it holds no letter and no digit."""
    return tuple(lemma for token in _folded(text).split(" ") if (lemma := lemma_of(token, language)))


def identity(language: str) -> dict[str, object]:
    """What lemmas depend on besides the text, as JSON.

    Raises:
        ParamsError: the lemmatiser does not know the language.
    """
    import simplemma

    return {
        "version": VERSION,
        "lemmatiser": f"simplemma {simplemma.__version__}",
        "language": _dictionary(language),
        "unicode": unicodedata.unidata_version,
    }


def identity_hash(language: str) -> str:
    """sha256 of `identity`."""
    return value_digest(identity(language))


class Numbering:
    """Numbers of the lemmas of a vocabulary in texts; each different word is lemmatised once.

    Attributes:
        vocabulary: the lemmas; the number of one is its place.
    """

    def __init__(self, vocabulary: Sequence[str], language: str) -> None:
        self.vocabulary = list(vocabulary)
        self._cache = _Numbers({lemma: number for number, lemma in enumerate(vocabulary)}, language)

    def of(self, texts: Iterable[str]) -> np.ndarray:
        """The numbers of all texts in one row [T], int32: `BREAK` after each text, `UNKNOWN` for other words."""
        tokens = f" {_BREAK} ".join([*(_folded(text) for text in texts), ""]).split(" ")
        found = np.fromiter(map(self._cache.__getitem__, tokens), np.int32, len(tokens))
        return found[found != _NOTHING]


class _Numbers(dict[str, int]):
    """{word: number of its lemma}, filled on demand; emptied if a data set has too many different words."""

    _MOST = 2_000_000

    def __init__(self, numbers: dict[str, int], language: str) -> None:
        super().__init__({_BREAK: BREAK})
        self._numbers, self._language = numbers, language

    def __missing__(self, token: str) -> int:
        if len(self) >= self._MOST:
            self.clear()
            self[_BREAK] = BREAK
        lemma = lemma_of(token, self._language)
        self[token] = self._numbers.get(lemma, UNKNOWN) if lemma else _NOTHING
        return self[token]


def _folded(text: str) -> str:
    """A text as words separated by spaces; hyphens around words may be left."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = text.casefold().translate(_LETTERS)
    return _POSSESSIVE.sub("", text).replace("'", " ") if "'" in text else text


@lru_cache(maxsize=1_000_000)
def lemma_of(token: str, language: str) -> str:
    """The lemma of a folded word; empty if it holds no letter and no digit."""
    word = token.strip("-")
    if not word or any(letter.isdigit() for letter in word):
        return word
    head, hyphen, last = word.rpartition("-")
    return f"{head}{hyphen}{_lemma(last, _dictionary(language))}"


def _lemma(word: str, dictionary: str) -> str:
    import simplemma

    found = unicodedata.normalize("NFKC", simplemma.lemmatize(word, dictionary).casefold())
    return found if found and not any(letter.isspace() for letter in found) else word


@lru_cache
def _dictionary(language: str) -> str:
    """The lemmatiser's name of a language: `en` of `en_GB`."""
    from simplemma.strategies.dictionaries.dictionary_factory import SUPPORTED_LANGUAGES

    code = without_variant(language)
    code = {"no": "nb"}.get(code, code)
    if code not in SUPPORTED_LANGUAGES:
        raise ParamsError(
            f"concepts: there is no lemmatiser for evaluate.train_language {language!r}; there is one for "
            + ", ".join(sorted(SUPPORTED_LANGUAGES))
        )
    return code
