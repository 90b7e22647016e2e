"""Captions and concepts become lemmas by one rule: case, number, digits, hyphens, other scripts."""

from __future__ import annotations

import pytest

from flame_core.concepts.lemmas import BREAK, UNKNOWN, Numbering, identity, identity_hash, lemmas
from flame_core.errors import ParamsError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Jeans", ["jeans"]),
        ("two men", ["two", "man"]),
        ("PARIS", ["paris"]),
        ("Boeing 737-200", ["boeing", "737-200"]),
        ("hot-dogs", ["hot-dog"]),
        ("giraffes, pajamas", ["giraffe", "pajamas"]),
        ("oxford_cat", ["oxford", "cat"]),
        ("kite (bird of prey)", ["kite", "bird", "of", "prey"]),
        ("the bird's nests – old", ["the", "bird", "nest", "old"]),
        ("rock ’n’ roll", ["rock", "n", "roll"]),
        ("-- cars -", ["car"]),
        ("\uff26\uff4f\uff58\u00ad\uff45\uff53", ["fox"]),  # full-width letters with a soft hyphen
        ("stra\u00dfe", ["strasse"]),
        ("", []),
        ("?! \x1f ...", []),
    ],
)
def test_a_text_becomes_lemmas(text: str, expected: list[str]) -> None:
    assert list(lemmas(text, "en")) == expected


def test_marks_of_other_scripts_do_not_split_a_word() -> None:
    assert len(lemmas("\u0939\u093f\u0928\u094d\u0926\u0940", "hi")) == 1


def test_texts_become_rows_of_numbers_as_their_lemmas_say() -> None:
    texts = ["Two men -- and a dog", "", "The men's DOGS", "a\x1fdog", "737-200!"]
    vocabulary = ["man", "dog", "737-200"]
    found = Numbering(vocabulary, "en").of(texts).tolist()
    expected = []
    for text in texts:
        expected += [vocabulary.index(each) if each in vocabulary else UNKNOWN for each in lemmas(text, "en")]
        expected.append(BREAK)
    assert found == expected
    assert Numbering(vocabulary, "en").of([]).tolist() == []


def test_the_identity_names_all_that_lemmas_depend_on() -> None:
    assert identity("en_GB") == identity("en")
    assert identity_hash("en") != identity_hash("de") and len(identity_hash("en")) == 64
    assert identity("en")["lemmatiser"] == "simplemma 2.0.0"
    with pytest.raises(ParamsError, match=r"no lemmatiser for evaluate\.train_language 'zh'; there is one for .*en,"):
        identity("zh")
