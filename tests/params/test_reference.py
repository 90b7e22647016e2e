"""Every key says what it means, where one looks it up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
from typer.testing import CliRunner

from flame_core.cli import app
from flame_core.errors import ParamsError
from flame_core.params import ModelParams, Params
from flame_core.params.objectives import OBJECTIVES
from flame_core.params.reference import describe


def keys(above: str = "") -> Iterator[tuple[str, str]]:
    """All keys and kinds below one, with their meanings."""
    for each in describe(above).keys:
        path = ".".join(part for part in (above, each.name.removesuffix(" ...")) if part)
        yield path, each.meaning
        if each.name.endswith("...") or not each.values:
            yield from keys(path)


def test_every_key_has_a_meaning():
    found = dict(keys())
    assert len(found) > 700
    assert [path for path, meaning in found.items() if not meaning] == []


def test_values_defaults_and_meanings_are_those_of_the_classes():
    rows = {each.name: each for each in describe("train.model").keys}
    assert rows["head"].values.split(", ") == list(get_args(ModelParams.model_fields["head"].annotation))
    assert rows["head"].default == '"patches"'
    assert rows["head"].meaning == ModelParams.model_fields["head"].description
    assert rows["init ..."].values == "section or null" and rows["init ..."].default == "null"
    text = {each.name: each for each in describe("text").keys}
    assert text["layer"].values == "whole number above 0" and text["layer"].default == "must be given"
    assert text["batch_tokens"].default == "2048" and text["template ..."].values == "{name: section}"
    assert {each.name.removesuffix(" ...") for each in describe().keys} == set(Params.model_fields)


def test_a_choice_lists_its_kinds():
    found = describe("train.objective")
    assert found.kinds and [each.name for each in found.keys] == list(OBJECTIVES)
    assert describe("text.layer").keys == [each for each in describe("text").keys if each.name == "layer"]
    assert describe("train.terms.affinity") == describe("train.objective.affinity")
    assert {each.name for each in describe("sources.folder").keys} >= {"path", "delimiter", "links"}
    (delimiter,) = [each for each in describe("sources.folder").keys if each.name == "delimiter"]
    assert delimiter.values == '",", ";", "\\t", "|" or null'


@pytest.mark.parametrize(
    ("key", "same"),
    [("sources.mine.path", "sources.webdataset.path"), ("train.by_recipe.clip.text_tower", "train.text_tower"),
     ("train.by_objective.infonce.weight", "train.objective.infonce.weight"), ("train.flame.model", "train.model")],
)  # fmt: skip
def test_names_of_ones_own_are_no_keys(key, same):
    assert describe(key).keys[0].name == describe(same).keys[0].name


def test_an_unknown_key_is_refused_with_its_neighbour():
    with pytest.raises(ParamsError, match=r"no key 'laier' below text; did you mean 'layer'\?"):
        describe("text.laier")
    with pytest.raises(ParamsError, match="no key 'x'"):
        describe("text.layer.x")


def test_the_command_shows_them():
    said = CliRunner().invoke(app, ["params", "describe", "concepts.weights"], catch_exceptions=False).output
    assert "cap" in said and "must be given" in said and "1.0" in said
    assert "infonce" in CliRunner().invoke(app, ["params", "describe", "train.objective"]).output
