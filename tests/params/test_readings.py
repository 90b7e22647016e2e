"""`text.sentence` and a recipe's `reading`: which values go together, and what the errors say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flame_core.errors import ParamsError
from flame_core.params import Params, SentenceParams, TrainParams, parse_params, read_yaml
from tests.params.digest_table import ROOT


def parsed(tmp_path: Path, sentence: dict[str, Any] | None, **train: Any) -> Params:
    raw = read_yaml(ROOT / "params.yaml")
    raw["text"]["sentence"] = sentence
    raw["train"] |= train
    return parse_params(raw, tmp_path / "params.yaml", ROOT / "recipes")


def test_a_recipe_of_sentences_needs_the_reading(tmp_path: Path) -> None:
    wanted = r"recipe flame has reading: sentence, and text\.sentence is null"
    with pytest.raises(ParamsError, match=wanted):
        parsed(tmp_path, None, reading="sentence")
    assert parsed(tmp_path, {}, reading="sentence").train["flame"].reading == "sentence"


def test_null_is_what_was_there_before(tmp_path: Path) -> None:
    before = parse_params(read_yaml(ROOT / "params.yaml"), tmp_path / "params.yaml", ROOT / "recipes")
    assert parsed(tmp_path, None, reading="facets").digest == before.digest
    assert parsed(tmp_path, {}).digest != before.digest
    assert "sentence" not in before.model_dump(mode="json")["text"]
    assert "reading" not in before.model_dump(mode="json")["train"]["flame"]


def test_a_reading_that_is_set_is_recorded_and_read_back(tmp_path: Path) -> None:
    params = parsed(tmp_path, {"read": "mean", "end_token": False, "layer": 30}, reading="sentence")
    assert Params.model_validate(params.model_dump(mode="json")) == params
    assert (params.text.sentence_layer, params.text.depth) == (30, 30)
    assert parsed(tmp_path, {}).text.sentence_layer == 29


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "Query:"}, r"must contain \{caption\} exactly once"),
        ({"prompt": "{caption}{caption}"}, r"must contain \{caption\} exactly once"),
        ({"read": "mean", "end_token": True}, "end_token has no effect on a mean over causal tokens"),
        ({"end_token": ""}, "at least 1 character"),
        ({"layer": 0}, "greater than 0"),
        ({"read": "first"}, "'last' or 'mean'"),
    ],
)
def test_values_that_do_not_go_together(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SentenceParams.model_validate(values)


def test_sentences_have_no_facets_for_facet_tokens() -> None:
    content = {"reading": "sentence", "model": {"facet_blocks": "all"}, "objective": {"name": "facet_sigmoid"}}
    with pytest.raises(ValidationError, match="facet_blocks needs facets, which reading: sentence lacks"):
        TrainParams.model_validate(content)
