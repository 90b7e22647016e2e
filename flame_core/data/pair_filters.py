"""The rules of `ingest.filters`: each gives a reason for the ledger.

| reason | about |
|---|---|
| `filter_language`, `filter_words`, `filter_characters` | a caption; a pair is dropped with its last one |
| `filter_side`, `filter_aspect` | the source's picture |
| `filter_score_<column>`, `filter_licence` | the pair |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil, inf
from typing import Any

from flame_core.data.captions_text import word_count
from flame_core.data.picture_decoding import open_picture
from flame_core.errors import ParamsError, ResourceError
from flame_core.language_names import without_variant
from flame_core.params import LanguageFilter, PairFilterParams

FILTERED = "filter_"
SHORTEST = 25  # characters of a caption whose language is judged: of shorter ones, a fifth is judged wrongly


def filter_captions(
    captions: Mapping[str, list[str]], rules: PairFilterParams
) -> tuple[dict[str, list[str]], Counter[str]]:
    """The captions that the rules leave, by language, and how many are left out by reason."""
    left_out: Counter[str] = Counter()
    kept: dict[str, list[str]] = {}
    for language, texts in captions.items():
        for text in texts:
            if reason := _caption_reason(text, rules):
                left_out[reason] += 1
            else:
                kept.setdefault(language, []).append(text)
    return kept, left_out


def _caption_reason(text: str, rules: PairFilterParams) -> str | None:
    words, characters = ceil(word_count(text)), len(text)
    if words < (rules.min_words or 0) or words > (rules.max_words or words):
        return "filter_words"
    if characters < (rules.min_characters or 0) or characters > (rules.max_characters or characters):
        return "filter_characters"
    if (
        rules.language
        and characters >= SHORTEST
        and language_of(text, rules.language) not in _plain(rules.language.keep)
    ):
        return "filter_language"
    return None


def _plain(languages: Sequence[str]) -> set[str]:
    return {without_variant(code) for code in languages}


_expected: tuple[str, ...] | None = ()  # what py3langid is set to


def language_of(text: str, rule: LanguageFilter) -> str:
    """The language of a text, in two letters, by py3langid.

    Raises:
        ResourceError: py3langid is not installed.
        ParamsError: it does not know a language of `among`.
    """
    global _expected
    try:
        import py3langid
    except ModuleNotFoundError:
        raise ResourceError(
            "ingest.filters.language needs py3langid, which is not installed: `pip install 'flame-mlops[language]'`"
        ) from None
    among = None if rule.among is None else tuple(sorted(_plain([*rule.keep, *rule.among])))
    if among != _expected:
        try:
            py3langid.set_languages(list(among) if among else None)
        except ValueError as error:
            raise ParamsError(f"ingest.filters.language: {error}") from None
        _expected = among
    return str(py3langid.classify(text)[0])


def picture_reason(content: bytes, max_pixels: int, rules: PairFilterParams) -> tuple[str, str] | None:
    """(reason, detail) if a picture is not wanted for its shape.

    Raises:
        PictureError: its header cannot be read.
    """
    if rules.min_side is None and rules.max_aspect is None:
        return None
    size = open_picture(content, max_pixels).size
    shape = f"{size[0]} x {size[1]} pixels"
    if min(size) < (rules.min_side or 0):
        return "filter_side", f"{shape}, and filters.min_side is {rules.min_side}"
    if rules.max_aspect is not None and max(size) > rules.max_aspect * min(size):
        return "filter_aspect", f"{shape}, and filters.max_aspect is {rules.max_aspect:g}"
    return None


def pair_reason(licence: str | None, columns: Mapping[str, Any], rules: PairFilterParams) -> tuple[str, str] | None:
    """(reason, detail) if a pair is not wanted for its licence or its scores."""
    if rules.licences is not None:
        if licence is None and rules.licences.unknown == "drop":
            return "filter_licence", "its licence is not known"
        if licence is not None and licence.casefold() not in {name.casefold() for name in rules.licences.keep}:
            return "filter_licence", f"its licence is {licence[:80]!r}"
    for rule in rules.scores:
        value = _number(columns.get(rule.column))
        if value is None:
            if rule.missing == "drop":
                return f"filter_score_{rule.column}", f"it has no number in the column {rule.column!r}"
        elif (rule.min is not None and value < rule.min) or (rule.max is not None and value > rule.max):
            return f"filter_score_{rule.column}", f"its {rule.column} is {value:g}"
    return None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    except OverflowError:  # a whole number of hundreds of digits
        return inf if value > 0 else -inf
    return number if number == number else None
