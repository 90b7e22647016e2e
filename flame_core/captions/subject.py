"""Finds the subject of a caption, in a few English words, in a pair's raw caption or title.

A raw caption may be a noun phrase ("An owl."), a label ("Queen. Can move in any direction.") or sentences. The
subject is its first noun phrase or clause, cut so that more text can follow after a comma:

    "A little girl is climbing the stairs." -> "A little girl climbing the stairs"
    "Saturn—the second largest planet."     -> "Saturn"
    "The yellow light means you should stop if it is safe." -> "The yellow light"

It uses word lists and patterns, not a model: it is deterministic, and its mistakes are only of style.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flame_core.captions.articles import corrected, starts_with_vowel
from flame_core.captions.colours import COLOURS


def _lexicon(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PREPOSITIONS = _lexicon(
    "about above across after against along among around as at atop before behind below beneath beside between beyond "
    "by down during for from in inside into like near off on onto out outside over past through toward towards under "
    "underneath up upon while with within without"
)
_JOINING = _PREPOSITIONS | _lexicon("and or of to that which who whose where when but so because if")
_BOUNDARIES = _PREPOSITIONS | _lexicon("that which who where when because if but")
_FINITE = _lexicon(
    "am is are was were be has have had can could will would shall should may might must do does did mean means "
    "isn't aren't wasn't weren't can't don't doesn't makes made lives live gets goes comes"
)
_BEFORE_COLOUR = _lexicon(
    "big large huge giant small little tiny tall short long old young new happy sad angry funny cute pretty beautiful "
    "lovely nice good bad strange scary friendly"
)
_PRONOUNS = _lexicon("i you he she it we they this that these those there here what who")
_DETERMINERS = _lexicon("a an the some several many another our your my two three four five six seven eight nine ten")
_ABBREVIATIONS = _lexicon("mr mrs ms dr st no vs inc jr sr prof fig e.g i.e u.s")
_JOINERS = "\u200c\u200d"  # between letters of a word, which are written otherwise without
_WITHIN_WORDS = re.compile(r"[\u00ad\u2060\ufeff]+")  # soft hyphens and the like, which stand for nothing
_CHARS = 1000  # of a text that are examined
_WORD_CHARS = 40
_QUOTES = "\"'“”‘’«»„‹›`"
_OPENING = re.compile(
    r"^(?:(?:this|it|here|there|these|those|they) (?:is|are)|it's|here's|there's|that's)\s+(?=\S+\s+\S)", re.I
)
_PICTURE_OF = re.compile(r"^(?:(?:a|an|the|this)\s+)?(?:picture|photo|photograph|image|pic)s?\s+of\s+", re.I)
_AUXILIARY = re.compile(rf"\b(?:is|are|was|were)\s+(?=(?:\w+ing|{'|'.join(sorted(_PREPOSITIONS))})\b)", re.I)
_SENTENCE_END = re.compile(r"[.!?…]+[”’\"')]*\s+(?=[^a-z\s])")
_TAIL = " \t.,;:!?…-–—"


@dataclass(frozen=True)
class Subject:
    """A phrase that starts a sentence. A colour may be inserted between `before` and `noun`."""

    text: str
    before: str | None = None
    noun: str | None = None

    @property
    def words(self) -> frozenset[str]:
        return words(self.text)

    @property
    def colours(self) -> frozenset[str]:
        """Colour names that the phrase mentions."""
        found = {word.removesuffix("ish") for word in self.words}
        found |= {"grey"} if found & {"gray", "silver"} else set()
        return frozenset(found & set(COLOURS))


def words(text: str) -> frozenset[str]:
    """The words of a text in lower case, each also without a final s."""
    found = set(re.findall(r"[^\W_]+", text.lower()))
    return frozenset(found | {word.removesuffix("s") for word in found})


def fold(text: str) -> str:
    """The text on one line without control characters, whitespace collapsed and stripped.

    Joiners stay, since words of Persian or Hindi and emoji change without them; nothing is left of joiners alone.
    """
    text = _WITHIN_WORDS.sub("", text)
    controls = ("Cc", "Cf", "Cs", "Zl", "Zp")
    text = "".join(" " if unicodedata.category(c) in controls and c not in _JOINERS else c for c in text)
    line = " ".join(text.split())
    return line if line.strip(f" {_JOINERS}") else ""


def find_subject(meta: Mapping[str, Any], limit: int, *, longest: bool = False) -> Subject | None:
    """The subject in at most about `limit` words, from the shortest (or longest) English caption, or the title."""
    captions = [text for text in map(fold, meta["captions"].get("en", [])) if text]
    captions.sort(key=lambda text: len(text.split()), reverse=longest)
    title = fold((meta.get("title") or "").replace("_", " "))
    for text in (*captions, title):
        phrase = noun_phrase(text, limit)
        if phrase:
            return _subject(phrase)
    return None


def noun_phrase(text: str, limit: int) -> str:
    """The first noun phrase or clause of a text, at most about `limit` words, without a full stop; may be empty."""
    text = fold(text[:_CHARS])
    text = _first_sentence(text.strip(_QUOTES) if text.startswith(tuple(_QUOTES)) else text)
    text = re.sub(r"\s*\([^)]*\)", "", text).strip(_TAIL)
    text = re.sub(r"\s+(?=[,;:])", "", text)
    text = _PICTURE_OF.sub("", _OPENING.sub("", text))
    text = _AUXILIARY.sub("", text)
    text = re.split(r"\s*—\s*|\s+[-–]\s+|[:;]\s", text)[0]
    found = [word[:_WORD_CHARS] for word in _before_verb(text.split())]
    if len(found) > limit + 2:  # a word or two more read better than a cut
        found = _cut(found, limit)
    text = " ".join(found).strip(_TAIL)
    if text.count('"') % 2 or text.count("“") != text.count("”"):
        text = re.sub(r"[\"“”]", "", text)
    text = corrected(text)
    return text[:1].upper() + text[1:]


def _first_sentence(text: str) -> str:
    for match in _SENTENCE_END.finditer(text):
        last = text[: match.start()].split()[-1:]
        abbreviated = bool(last) and (last[0].lower().strip("(") in _ABBREVIATIONS or len(last[0]) == 1)
        if not abbreviated:
            return text[: match.start()]
    return text


def _before_verb(found: list[str]) -> list[str]:
    """The noun phrase before a finite verb; all words if it is only a pronoun or not simple."""
    for i, word in enumerate(found):
        if word.lower() in _FINITE and i:
            plain = found[0].lower().strip(",") in _PRONOUNS or any(w.lower() in _BOUNDARIES for w in found[:i])
            return found if plain else found[:i]
    return found


def _cut(found: list[str], limit: int) -> list[str]:
    """At most `limit` words, cut before a preposition or after a comma if there is one in the second half."""
    for i in range(limit, limit // 3, -1):
        if found[i].lower() in _BOUNDARIES or found[i - 1].endswith((",", ";")):
            return _without_joining(found[:i])
    return _without_joining(found[:limit])


def _without_joining(found: list[str]) -> list[str]:
    while found and found[-1].lower() in _JOINING | _DETERMINERS:
        found = found[:-1]
    return found


def _subject(phrase: str) -> Subject:
    first, _, rest = phrase.partition(" ")
    plain = [re.fullmatch(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*", word) for word in rest.split()]
    simple = first.lower() in _DETERMINERS and 1 <= len(plain) <= 4 and all(plain)
    simple = simple and not any(w in _JOINING | _FINITE or (w.endswith("ing") and len(w) > 5) for w in rest.split())
    if not simple:
        return Subject(phrase)
    nouns = rest.split()
    while len(nouns) > 1 and nouns[0].lower() in _BEFORE_COLOUR:
        first, nouns = f"{first} {nouns[0]}", nouns[1:]
    return Subject(phrase, first, " ".join(nouns)) if nouns[0].lower() not in ("very", "too", "so") else Subject(phrase)


def with_colour(subject: Subject, colour: str) -> str:
    """`An owl` + `brown and white` -> `A brown and white owl`; requires `subject.noun`."""
    before = subject.before or ""
    if before.lower() in ("a", "an"):
        before = before[0] + ("n" if starts_with_vowel(colour.split()[0]) else "")
    return f"{before} {colour} {subject.noun}"
