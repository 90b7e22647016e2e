"""`a` or `an`, by the sound that follows."""

from __future__ import annotations

import pytest

from flame_core.captions.articles import corrected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A orange circle", "An orange circle"),
        ("An red circle", "A red circle"),
        ("a apple on a table, beside an pear", "an apple on a table, beside a pear"),
        ("A unicorn and a uniform", "A unicorn and a uniform"),
        ("An unicorn", "A unicorn"),
        ("A umbrella on a uneven road", "An umbrella on an uneven road"),
        ("A unimportant and a uninhabited island", "An unimportant and an uninhabited island"),
        ("A unidentified object", "An unidentified object"),
        ("A ewe, a European bison and a one-way street", "A ewe, a European bison and a one-way street"),
        ("A hour and a honest man", "An hour and an honest man"),
        ("An historic mill, a herb, an hippopotamus", "An historic mill, a herb, an hippopotamus"),
        ("A US 5 cent piece, an X-ray, a 8 and an LED", "A US 5 cent piece, an X-ray, a 8 and an LED"),
        ("The letter A in a frame; Vitamin A is good", "The letter A in a frame; Vitamin A is good"),
        ("A élan", "A élan"),
        ("Banana orange", "Banana orange"),
        ("a", "a"),
        ("", ""),
    ],
)  # fmt: skip
def test_articles(text, expected):
    assert corrected(text) == expected
    assert corrected(expected) == expected
