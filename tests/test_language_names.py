"""Language codes: the language of one, without region, script or variant."""

from __future__ import annotations

import pytest

from flame_core.language_names import without_variant


@pytest.mark.parametrize(
    ("code", "language"),
    [("en", "en"), ("en-GB", "en"), ("en_US", "en"), ("EN", "en"), ("sr@latin", "sr"), ("zh-Hant-TW", "zh")],
)
def test_the_language_of_a_code(code: str, language: str):
    assert without_variant(code) == language
