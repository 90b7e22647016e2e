"""Nouns of English captions, by word lists and patterns: concepts where no list of classes is at hand.

A noun phrase begins a caption or follows an article, a preposition, a conjunction or a mark, and ends before the next
of these or before a verb form (`-ing`, `-ed`, `is`). Its last word counts as a noun. A lemma is taken for a noun if it
ends a phrase in at least half of the captions that hold it, so `red` of `a red car` is none. No model is asked: the
same captions always give the same nouns, and mistakes are words that end phrases without being nouns.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from flame_core.concepts.lemmas import lemmas


def _lexicon(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FUNCTION = _lexicon(
    "a an the this that these those some any each every no another its his her their our my your it he she they we "
    "you i them him us me one two three four five six seven eight nine ten several many few more most all both "
    "other such about above across after against along among around as at before behind below beneath beside "
    "between beyond by down during for from in inside into like near of off on onto out outside over past through "
    "to toward towards under up upon via with within without and or but nor so if while when where who which what "
    "whose because than then there here not very too also just only am is are was were be been being has have had "
    "do does did can could will would may might must shall should"
)
_MARKS = re.compile(r"[^\w\s'’-]+")
_WORDS = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_LEAST_SHARE = 0.5  # of the captions that hold a lemma, in which it ends a phrase


def count_nouns(texts: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """(captions in which a lemma ends a noun phrase, captions that hold it), of English captions."""
    ends: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for text in texts:
        ends.update({lemma for word in phrase_ends(text) for lemma in lemmas(word, "en")[-1:]})
        held.update(set(lemmas(text, "en")))
    return ends, held


def phrase_ends(text: str) -> list[str]:
    """The last words of the noun phrases of a caption, as they are written."""
    found: list[str] = []
    for part in _MARKS.split(text):
        last = ""
        for word in _WORDS.findall(part):
            folded = word.casefold().partition("'")[0]
            if folded in _FUNCTION or (last and _is_verb_form(folded)):
                found += [last] if last else []
                last = ""
            elif not _is_verb_form(folded):
                last = word
        found += [last] if last else []
    return found


def _is_verb_form(word: str) -> bool:
    return len(word) > 5 and word.endswith(("ing", "ed"))


def chosen_nouns(ends: Mapping[str, int], held: Mapping[str, int], least: int, most: int) -> list[str]:
    """At most `most` nouns that end a phrase in at least `least` captions, the most frequent ones, sorted."""
    fit = [
        (-count, lemma)
        for lemma, count in ends.items()
        if count >= least and count >= _LEAST_SHARE * held[lemma] and len(lemma) > 1 and not lemma.isdecimal()
    ]
    return sorted(lemma for _, lemma in sorted(fit)[:most])
