"""Models whose pictures cannot be compared with the vectors that are stored for captions are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flame_core.errors import InputError, ParamsError
from flame_core.measuring.image_vectors import require_stored_facets

MANIFEST = {"llm": {"name": "tiny"}, "layer": 3, "hidden": 64}


def required(space: dict[str, Any] | None = None, **recipe: Any) -> None:
    config = {**MANIFEST, **(space or {}), "recipe": {"model": {"head": "patches"}, **recipe}}
    require_stored_facets(config, MANIFEST, Path("data/models/small"), "codes.similarity")


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        ({"text_tower": {"depth": 1}}, "text_tower"),
        ({"text_projection": {"dim": 8}}, "text_projection"),
        ({"lora": {"rank": 4}}, "lora"),
        ({"reading": "sentence"}, "reading"),
        ({"model": {"head": "lexical"}}, "model.head"),
    ],
)
def test_texts_that_something_else_reads(recipe: dict[str, Any], named: str):
    with pytest.raises(ParamsError, match=rf"^codes.similarity: the tower small .* \(its {named}\): take another"):
        required(**recipe)


def test_another_space():
    with pytest.raises(InputError, match="differ in layer"):
        required({"layer": 4})
    required()
    required(text_tower=None, text_projection=None, lora=None, reading="facets")
