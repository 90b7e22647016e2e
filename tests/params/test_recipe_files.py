"""Recipes that need a teacher, sidecars or a selection: where their files stand, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.errors import ParamsError
from flame_core.params import Params, TrainParams, parse_params, read_yaml, teacher_recipe
from flame_core.params.training import LINKS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    (tmp_path / "recipes/linked").mkdir(parents=True)
    (tmp_path / "recipes/plain.yaml").write_text("epochs: 2\n")
    return tmp_path / "recipes"


def parsed(recipes: Path, names: list[str], **train) -> Params:
    raw = {**read_yaml(ROOT / "params.yaml"), "recipes": names, "train": {"kinds": ["raw"], **train}}
    return parse_params(raw, Path("params.yaml"), recipes)


def linked(recipes: Path, name: str, content: str) -> None:
    (recipes / f"linked/{name}.yaml").write_text(content)


def test_a_linked_recipe_is_read_from_where_it_is_written_by_hand(recipes):
    linked(recipes, "student", "teacher: {recipe: plain}\nepochs: 3\n")
    (recipes / "student.yaml").write_text("epochs: 99\nlinked: {teacher: {}}\n")  # as a link made it
    params = parsed(recipes, ["plain", "student"])
    assert params.train["student"].epochs == 3
    assert teacher_recipe(params.train["student"]) == "plain"
    assert teacher_recipe(params.train["plain"]) is None


@pytest.mark.parametrize(
    ("path", "recipe"),
    [("data/models/plain", "plain"), ("./data/models/plain/", "plain"), ("data/models", None), ("old/plain", None)],
)
def test_a_folder_of_a_recipe_is_that_recipe(path, recipe):
    assert teacher_recipe(TrainParams.model_validate({"teacher": {"path": path}})) == recipe


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("{recipe: student}", "student needs student, so none can be trained first"),
        ("{path: data/models/student}", "student needs student"),
        ("{recipe: other}", "its teacher other is not among the recipes; list it under recipes"),
        ("{}", "name one teacher: a recipe, a path or a model"),
        ("{recipe: plain, path: x}", "name one teacher: a recipe, a path or a model"),
        ("{path: '${x}'}", "holds no"),
        ("{recipe: ../x}", "a name is made of"),
    ],
)
def test_impossible_teachers_are_refused(recipes, teacher, message):
    linked(recipes, "student", f"teacher: {teacher}\n")
    with pytest.raises(ParamsError, match=message):
        parsed(recipes, ["plain", "student"])


def test_a_circle_of_teachers_is_refused(recipes):
    for name, teacher in (("a", "b"), ("b", "c"), ("c", "a")):
        linked(recipes, name, f"teacher: {{recipe: {teacher}}}\n")
    with pytest.raises(ParamsError, match="a needs b needs c needs a"):
        parsed(recipes, ["a", "b", "c"])


def test_models_to_inherit_from_count_as_well(recipes):
    linked(recipes, "a", "teacher: {recipe: b}\n")
    linked(recipes, "b", "inherit: {path: data/models/a}\n")
    with pytest.raises(ParamsError, match=r"a needs b needs a"):
        parsed(recipes, ["a", "b"])
    linked(recipes, "b", "inherit: {recipe: plain}\nteacher: {recipe: plain}\n")
    assert parsed(recipes, ["plain", "a", "b"]).train["b"].inherit.recipe == "plain"
    with pytest.raises(ParamsError, match="its source of weights plain is not among the recipes"):
        parsed(recipes, ["a", "b"])


def test_how_weights_are_inherited_is_part_of_the_recipe_and_from_where_is_not():
    def identity(**inherit) -> dict:
        return TrainParams.model_validate({"inherit": inherit}).identity

    assert identity(recipe="a") == identity(path="b") == TrainParams().identity
    assert identity(recipe="a", blocks="first", projector=False)["inherit"] == {"blocks": "first", "projector": False}


def test_it_is_clear_which_file_is_the_recipe(recipes):
    linked(recipes, "plain", "teacher: {path: x}\n")
    with pytest.raises(ParamsError, match=r"linked/plain\.yaml and .*plain\.yaml are both the recipe plain"):
        parsed(recipes, ["plain"])
    (recipes / "left.yaml").write_text("linked: {}\n")
    with pytest.raises(ParamsError, match=r"left\.yaml was made from .*linked/left\.yaml, which does not exist"):
        parsed(recipes, ["left"])
    with pytest.raises(ParamsError, match=r"known recipes: left, plain"):
        parsed(recipes, ["none"])


def test_links_enter_no_digest_of_the_recipe_and_no_config_unless_they_are_set():
    plain = TrainParams.model_validate({"terms": [{"name": "prompts"}]})
    full = TrainParams.model_validate(
        {
            "terms": [{"name": "prompts"}],
            "teacher": {"path": "x"},
            "inherit": {"path": "y"},
            "sidecars": {"labels": "data/sidecars/labels"},
            "selection": "keys.parquet",
            "prompts": "data/prompts",
        }
    )
    assert full.identity == plain.identity  # a training knows them by their content
    assert not plain.dump().keys() & set(LINKS)
    assert {name: full.dump()[name] for name in LINKS} == {
        "teacher": {"path": "x"},
        "inherit": {"path": "y"},
        "sidecars": {"labels": "data/sidecars/labels"},
        "selection": "keys.parquet",
        "prompts": "data/prompts",
    }
    for recipe in (plain, full):
        assert TrainParams.model_validate(recipe.dump()) == recipe
