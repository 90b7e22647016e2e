"""Where a value was written: the file and line, an override, `train` of the params or a recipe."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from flame_core.params.places import Places, short
from flame_core.params.yaml_text import read_placed_text

OWN = """\
text:
  layer: 3
evaluate: {languages: [en, de]}
train:
  epochs: 2
  objective: {weight: 1}
  by_objective:
    infonce: {logit_scale: 1}
"""
RECIPE = "epochs: 1\nmodel: {image_size: 8}\nobjective: {name: infonce, weight: 2, logit_scale: 3}\n"


def places() -> Places:
    made = Places("own.yaml", read_placed_text(OWN, "own.yaml").lines)
    made.add_recipe("mine", Places("mine.yaml", read_placed_text(RECIPE, "mine.yaml").lines), "infonce")
    return made


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("text.layer", "own.yaml, line 2, text.layer"),
        ("evaluate.languages.1", "own.yaml, line 3, evaluate.languages.1"),
        ("text.sentence.layer", "own.yaml, line 2, text.layer"),  # `sentence` as a tag is skipped
        ("llm", "own.yaml"),
        ("train.mine.epochs", "own.yaml, line 5, train.epochs"),
        ("train.mine.model.image_size", "mine.yaml, line 2, model.image_size"),
        ("train.mine.objective.infonce.weight", "own.yaml, line 6, train.objective.weight"),
        ("train.mine.objective.infonce.logit_scale", "own.yaml, line 8, train.by_objective.infonce.logit_scale"),
        ("train.mine.objective.name", "mine.yaml, line 3, objective.name"),
        ("train.mine.seed", "mine.yaml"),
        ("train.mine", "mine.yaml"),
    ],
)
def test_a_place(key, place):
    assert str(places().find(tuple(key.split(".")))) == place


def test_a_key_that_is_missing_has_the_line_of_its_section():
    assert str(places().find(("text", "template"), missing=True)) == "own.yaml, line 1, text.template"
    assert (
        str(places().find(("train", "mine", "model", "backbone"), missing=True)) == "mine.yaml, line 2, model.backbone"
    )


def test_an_override_replaces_a_value_and_merges_sections():
    made = places()
    made.override("--set evaluate.languages=[fr]", {"evaluate": {"languages": ["fr"]}})
    made.override("--set text.template={raw: x}", {"text": {"template": {"raw": "x"}}})
    assert made.find(("evaluate", "languages", "0")).source == "--set evaluate.languages=[fr]"
    assert made.find(("evaluate", "languages", "1")).key == ("evaluate", "languages")  # of the file's two, none is left
    assert str(made.find(("evaluate",))) == "own.yaml, line 3, evaluate"
    assert made.find(("text", "template", "raw")).source == "--set text.template={raw: x}"
    assert made.find(("text", "layer")).line == 2


def test_a_large_override_takes_little_time():
    made, start = places(), time.process_time()
    made.override("--set x", {"x": list(range(50_000)), "y": {str(n): n for n in range(50_000)}})
    assert time.process_time() - start < 5


def test_merged_and_aliased_keys_have_the_line_where_they_are_written():
    lines = read_placed_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc: *a\n", "here").lines
    assert lines == {
        ("a",): 1, ("a", "x"): 1, ("a", "y"): 1, ("b",): 2, ("b", "x"): 1, ("b", "y"): 4,
        ("c",): 5, ("c", "x"): 1, ("c", "y"): 1,
    }  # fmt: skip


def test_keys_given_twice_are_all_told():
    placed = read_placed_text("a: 1\nb: {c: 1, c: 2}\na: 2\n", "here")
    assert placed.value == {"a": 2, "b": {"c": 2}}
    assert [text.split(": ")[0] for text in placed.twice] == ["here, line 2, b.c", "here, line 3, a"]


def test_a_path_is_shown_as_people_write_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert short(tmp_path / "recipes/mine.yaml") == "recipes/mine.yaml"
    assert short(Path("params.yaml")) == "params.yaml"
    assert short(tmp_path.parent / "params.yaml") == str(tmp_path.parent / "params.yaml")
