"""BLEU-4 and CIDEr-D of written captions against the reference captions of their pictures.

Both compare n-grams of n = 1 to 4 words, in lower case and without punctuation. They are for languages that put spaces
between words. The usual tool for captions (pycocoevalcap) splits words with a Java program, so its numbers differ a
little.

    BLEU-4 = min(1, exp(1 - r / c)) (p_1 p_2 p_3 p_4)^(1/4)
        p_n: share of the written n-grams that a reference has, each counted at most as often as in one reference;
        c, r: words written, and words of the references nearest in length, in total         (Papineni et al., 2002)
    CIDEr-D = 10 / 4 sum_n mean over references of exp(-(l - l')^2 / 72) min(g, g') . g' / (|g| |g'|)
        g, g': counts of n-grams in the written text and in a reference, times ln(N / pictures with it in references);
        l, l': their lengths in words; N: pictures                                          (Vedantam et al., 2015)

CIDEr-D is 0 if all pictures have the same reference, and has a meaning for several pictures only.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

Words = tuple[str, ...]
LONGEST = 4
_SIGMA = 6.0
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def words(text: str) -> Words:
    """The words of a text in lower case, without punctuation."""
    return tuple(_WORD.findall(text.lower()))


def bleu(written: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 of all texts together, 0 to 1; 0 if no four words in a row are those of a reference."""
    matched, total, own, nearest = [0] * LONGEST, [0] * LONGEST, 0, 0
    for text, given in zip(written, references, strict=True):
        found, wanted = words(text), [words(each) for each in given]
        own += len(found)
        nearest += min((abs(len(each) - len(found)), len(each)) for each in wanted)[1]
        for n in range(1, LONGEST + 1):
            counts = _grams(found, n)
            most = Counter[Words]()
            for each in wanted:
                most |= _grams(each, n)
            matched[n - 1] += (counts & most).total()
            total[n - 1] += counts.total()
    if not all(matched):
        return 0.0
    precision = math.exp(sum(math.log(hit / of) for hit, of in zip(matched, total, strict=True)) / LONGEST)
    return precision * min(1.0, math.exp(1 - nearest / own))


def cider(written: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each text, 0 to 10; their mean is the score that is quoted (often times 100)."""
    wanted = [[words(each) for each in given] for given in references]
    scores = [0.0] * len(wanted)
    for n in range(1, LONGEST + 1):
        pictures = Counter(gram for own in wanted for gram in {gram for each in own for gram in _grams(each, n)})
        weights = {gram: math.log(len(wanted) / count) for gram, count in pictures.items()}
        unseen = math.log(len(wanted))
        for place, (text, own) in enumerate(zip(written, wanted, strict=True)):
            found = words(text)
            alike = sum(_alike(found, each, n, weights, unseen) for each in own)
            scores[place] += 10 / LONGEST * alike / len(own)
    return scores


def _alike(found: Words, wanted: Words, n: int, weights: Mapping[Words, float], unseen: float) -> float:
    """The n-gram similarity of a written text and a reference."""
    g, other = (
        {gram: count * weights.get(gram, unseen) for gram, count in _grams(each, n).items()} for each in (found, wanted)
    )
    norms = math.hypot(*g.values()) * math.hypot(*other.values())
    if norms == 0:
        return 0.0
    shared = sum(min(value, other[gram]) * other[gram] for gram, value in g.items() if gram in other)
    return math.exp(-((len(found) - len(wanted)) ** 2) / (2 * _SIGMA**2)) * shared / norms


def _grams(text: Words, n: int) -> Counter[Words]:
    return Counter(text[place : place + n] for place in range(len(text) - n + 1))
