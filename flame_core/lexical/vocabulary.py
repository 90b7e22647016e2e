"""The vocabulary: which tokens of an LLM are words, by a rule with a digest.

The paper (LexVLA, arXiv 2407.17827) keeps 17,149 of the 32,000 tokens of Llama 2 and does not say by which rule; this
one keeps the tokens that are only letters. Nothing is merged: `dog` and ` dog` are two words.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from flame_core.digest import value_digest
from flame_core.errors import ParamsError
from flame_core.params import LexicalParams

LARGEST = 2**16  # words; a word's number is stored in 16 bits
BEGINNING = ("Ġ", "▁", " ")  # marks of tokens that begin a word, in byte-level BPE and in SentencePiece


@dataclass(frozen=True)
class Word:
    """A token that is a word: its number in the LLM, its text, and whether it begins a word."""

    token: int
    text: str
    begins: bool


@dataclass(frozen=True)
class Vocabulary:
    """Words in the order of their tokens; their places are the numbers 0 to V - 1."""

    words: tuple[Word, ...]

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def digest(self) -> str:
        """Digest of all words."""
        return value_digest([[word.token, word.text, word.begins] for word in self.words])

    def only(self, places: np.ndarray) -> Vocabulary:
        """The words at these places, in their order."""
        return Vocabulary(tuple(self.words[place] for place in sorted(places.tolist())))

    def places(self, text: str) -> list[int]:
        """Where a word stands, whether it begins a word or not, in upper or lower case; [] if nowhere."""
        return self._by_text.get(text.strip().casefold(), [])

    @cached_property
    def _by_text(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for place, word in enumerate(self.words):
            found.setdefault(word.text.casefold(), []).append(place)
        return found


def read_vocabulary(tokenizer: Any, rows: int, params: LexicalParams) -> Vocabulary:
    """The words of a tokenizer whose LLM has an output matrix of so many rows.

    Raises:
        ParamsError: the rule leaves nothing, or more words than a word's number can say.
    """
    rule, special = params.rule, set(tokenizer.all_special_ids)
    pattern = re.compile(rf"[^\W\d_]{{{rule.min_letters},}}")
    found = []
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if number >= rows or number in special:
            continue
        begins, text = token.startswith(BEGINNING), tokenizer.decode([number]).strip()
        if not pattern.fullmatch(text) or (rule.whole and not begins):
            continue
        if rule.alphabet == "any" or all(unicodedata.name(letter, "").startswith("LATIN") for letter in text):
            found.append(Word(number, text, begins))
    if not found:
        raise ParamsError(f"lexical.rule leaves none of the {rows:,} tokens of the LLM: widen it ({rule!r})")
    if len(found) > LARGEST and params.words is None:
        raise ParamsError(
            f"lexical.rule leaves {len(found):,} words, and there may be {LARGEST:,}: set lexical.words, or narrow it"
        )
    return Vocabulary(tuple(found))
