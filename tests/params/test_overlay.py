"""`train:` of params.yaml over recipes with different losses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flame_core.errors import ParamsError
from flame_core.params import (
    CosineParams,
    FacetSigmoidParams,
    InfoNCEParams,
    MultiPositiveSigmoidParams,
    Params,
    merge,
    parse_params,
    read_yaml,
)
from flame_core.params.places import short

ROOT = Path(__file__).parents[2]
ALL = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


def parsed(train: dict, recipes: list[str] = ALL, folder: Path = ROOT / "recipes") -> Params:
    """The demo's params with other recipes and another `train`, all kinds of captions embedded in both readings."""
    content = read_yaml(ROOT / "params.yaml")
    content["text"]["sentence"] = {}
    content["text"]["train_kinds"] = ["raw", "short", "long"]
    return parse_params({**content, "recipes": recipes, "train": train}, Path("params.yaml"), folder)


def refused(train: dict, recipes: list[str] = ALL, folder: Path = ROOT / "recipes") -> str:
    with pytest.raises(ParamsError) as error:
        parsed(train, recipes, folder)
    return str(error.value)


def recipe_file(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "mine.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("source", ["params.yaml", "presets/flickr8k.yaml"])
def test_the_shipped_overlays_meet_all_recipes_at_once(source: str) -> None:
    overlay = read_yaml(ROOT / source)["train"]
    params = parsed(overlay)
    masked = {"a-clip", "a-clip-mask", "random-mask"}
    sigmoid = {"flame", "flame-raw", "clip-sigmoid"}
    assert {"clip", "lift", "lift-cosine", "proclip"} | masked | sigmoid < set(params.train)
    for name, recipe in params.train.items():
        own = overlay["by_recipe"].get(name, {})
        assert recipe.texts_per_image == own.get("texts_per_image", overlay["texts_per_image"])
        if name in masked:
            assert recipe.objective == InfoNCEParams(views="all")
        elif "infonce" in name or name.endswith("-baseline") or name in ("clip", "lift"):
            assert recipe.objective == InfoNCEParams()
        elif name == "proclip":
            assert recipe.objective == InfoNCEParams(during=(0.5, 1.0))
        elif name == "lift-cosine":
            assert recipe.objective == CosineParams()
        elif name == "flame-facets":
            assert recipe.objective == FacetSigmoidParams(logit_bias="auto", facet_weight=0.1)
        elif name in sigmoid:
            assert recipe.objective == MultiPositiveSigmoidParams(logit_bias="auto")
        else:
            assert recipe.objective.name == read_yaml(ROOT / "recipes" / f"{name}.yaml")["objective"]["name"]


def test_the_demos_recipes_are_different_trainings() -> None:
    """`kinds` and `texts_per_image` of `train:` would make `flame-raw` the training of `flame`."""
    recipes = parsed(read_yaml(ROOT / "params.yaml")["train"]).train
    assert recipes["flame-raw"].kinds == ["raw"] and recipes["flame-raw"].texts_per_image == 1
    assert recipes["flame-raw"].identity != recipes["flame"].identity


def test_a_value_that_all_their_losses_have_is_laid_over_recipes() -> None:
    params = parsed({"objective": {"logit_scale": 12.5}}, [name for name in ALL if name != "lift-cosine"])
    assert {recipe.objective.logit_scale for recipe in params.train.values()} == {12.5}
    assert [params.train[name].objective.name for name in ("clip", "flame")] == ["infonce", "multi_positive_sigmoid"]


def test_a_value_of_another_loss_is_refused_with_both_files_and_what_to_write() -> None:
    clip = ROOT / "recipes/clip.yaml"
    assert refused({"objective": {"logit_bias": "auto"}}, ["flame", "clip"]) == (
        "params.yaml is not valid:\n"
        f"  params.yaml, train.objective.logit_bias: {short(clip)} trains with infonce, which has no logit_bias; write "
        "train.by_objective.multi_positive_sigmoid.logit_bias and train.by_objective.facet_sigmoid.logit_bias to set "
        "it for the recipes with that loss only"
    )
    assert "facet_sigmoid.facet_weight to set" in refused({"objective": {"facet_weight": 0.5}}, ["flame"])
    allowed = parsed({"objective": {"logit_bias": -3.0}}, ["flame", "flame-facets"])
    assert [recipe.objective.logit_bias for recipe in allowed.train.values()] == [-3.0, -3.0]


def test_an_override_of_one_run_wins_over_the_file_by_objective() -> None:
    train = {"by_objective": {"infonce": {"logit_scale": 20.0}}}
    assert parsed(train, ["clip"]).train["clip"].objective.logit_scale == 20.0
    train = merge(train, {"objective": {"logit_scale": 30.0}})
    assert parsed(train, ["clip"]).train["clip"].objective.logit_scale == 30.0


def test_a_recipe_s_own_part_wins_over_the_rest_and_reaches_no_other() -> None:
    train = {
        "epochs": 20,
        "model": {"backbone_options": {"embed_dim": 192, "depth": 6}, "image_size": 48},
        "by_objective": {"infonce": {"logit_scale": 20.0}},
        "by_recipe": {"clip": {"epochs": 5, "model": {"backbone_options": {"depth": 3}}, "objective": {"weight": 2.0}}},
    }
    found = parsed(train, ["flame", "clip"]).train
    assert found["clip"].epochs == 5 and found["flame"].epochs == 20
    assert found["clip"].model.backbone_options == {"embed_dim": 192, "depth": 3}
    assert found["flame"].model.backbone_options == {"embed_dim": 192, "depth": 6}
    assert found["clip"].objective == InfoNCEParams(logit_scale=20.0, weight=2.0)
    unlisted = parsed({"by_recipe": {"clip": {"epochs": 5}}}, ["flame"])
    assert unlisted.train == parsed({}, ["flame"]).train


def test_another_loss_replaces_the_recipe_s_whole() -> None:
    train = {"objective": {"name": "infonce"}, "by_objective": {"infonce": {"weight": 2.0}}}
    params = parsed(train, ["flame", "clip"])
    assert params.train["flame"].objective == InfoNCEParams(weight=2.0)
    assert "which has no facet_weight" in refused({"objective": {"name": "infonce", "facet_weight": 1.0}})
    said = refused({"objective": {"name": "facet_sigmoid"}}, ["flame"])
    assert "facet_sigmoid and model.facet_blocks go together" in said


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"objective": {"name": "infonc"}}, r"train\.objective: .*'infonc'.*'multi_positive_sigmoid', 'facet_s"),
        ({"objective": {"name": ["infonce"]}}, r"train\.objective(\.name)?: "),
        ({"objective": {"logit_bais": 1.0}}, r"logit_bais: unknown key; did you mean 'logit_bias'"),
        ({"objective": {"weight": 0}}, r"train\.objective\.weight: .*greater than 0.*got 0"),
        ({"objective": {"texts_per_image": 4}}, r"texts_per_image: unknown key; it belongs beside 'objective', not in"),
        ({"objective": None}, r"train\.objective(\.name)?: "),
        ({"objective": 3}, r"train\.objective(\.name)?: "),
        ({"by_objective": 3}, r"train\.by_objective: must be a mapping of losses \(multi_positive_sigmoid, "),
        (
            {"by_objective": {"siglip": {}}},
            r"by_objective\.siglip: no such loss; the losses are multi_positive_sigmoid, ",
        ),
        ({"by_objective": {"infonce": 3}}, r"by_objective\.infonce: must be a mapping of that loss's values"),
        ({"by_objective": {"infonce": {"name": "x"}}}, r"by_objective\.infonce: .*without its name"),
        (
            {"by_objective": {"infonce": {"logit_bias": "auto"}}},  # no recipe here trains with it
            r"by_objective\.infonce\.logit_bias: unknown key.*accepted here: .*logit_scale",
        ),
        ({"by_recipe": 3}, r"train\.by_recipe: must be a mapping of recipes"),
        ({"by_recipe": {"flaem": {}}}, r"by_recipe\.flaem: no such recipe; the recipes are .*flame"),
        ({"by_recipe": {"clip": 3}}, r"by_recipe\.clip: must be a mapping of values"),
        ({"by_recipe": {"clip": {"epoch": 3}}}, r"by_recipe\.clip\.epoch: unknown key; did you mean 'epochs'"),
        ({"by_recipe": {"flame": {"epochs": 0}}}, r"by_recipe\.flame\.epochs: .*greater than 0.*got 0"),
        ({"epochs": 2, "by_recipe": {"flame": {"seed": "x"}}}, r"train\.by_recipe\.flame\.seed: .*integer"),
        ({"by_recipe": {"flame": {"objective": {"facet_weight": 1.0}}}}, r"trains with .*, which has no facet_weight"),
    ],
)
def test_a_mistake_in_an_overlay_is_named(train: dict, message: str) -> None:
    assert re.search(f"(?s)params.yaml.*{message}", refused(train, ["flame"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "objective: {name: infonce, logit_bias: auto}",
            r"line 1, objective\.logit_bias: unknown key; .*accepted here: weight, during, logit_scale, learning",
        ),
        (
            "objective: {name: multi_positive_sigmoid, facet_weight: 1.0}",
            r"line 1, objective\.facet_weight: unknown key",
        ),
        ("objective: {logit_scale: 1.0}", r"objective: the key 'name' is missing; it selects the kind"),
        ("by_objective: {infonce: {}}", r"by_objective: unknown key"),
        (
            "objective: {name: infonce, texts_per_image: 2}",
            r"texts_per_image: unknown key; it belongs beside 'objective', not in it",
        ),
    ],
)
def test_a_mistake_in_a_recipe_names_its_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    folder = recipe_file(tmp_path / "recipes", text)
    assert re.search(rf"(?s)mine\.yaml, .*{message}", refused({}, ["mine"], folder))


def test_a_recipe_that_names_no_loss_has_flames(tmp_path: Path) -> None:
    folder = recipe_file(tmp_path / "recipes", "{}")
    params = parsed({"objective": {"logit_bias": "auto"}}, ["mine"], folder)
    assert params.train["mine"].objective == MultiPositiveSigmoidParams(logit_bias="auto")
    assert "which has no facet_weight" in refused({"objective": {"facet_weight": 1.0}}, ["mine"], folder)


@pytest.mark.parametrize(
    "base, over, merged",
    [
        (
            {"short": {"captioner": "vlm", "model": "m", "dtype": "bfloat16"}},
            {"short": {"captioner": "metadata"}},
            {"short": {"captioner": "metadata"}},
        ),
        (
            {"short": {"captioner": "vlm", "model": "m"}},
            {"short": {"captioner": "vlm", "model": "n"}},
            {"short": {"captioner": "vlm", "model": "n"}},
        ),
        (
            {"short": {"captioner": "vlm", "model": "m"}},
            {"short": {"model": "n"}},
            {"short": {"captioner": "vlm", "model": "n"}},
        ),
        (
            {"sampling": {"name": "capped", "cap": 9}},
            {"sampling": {"name": "uniform"}},
            {"sampling": {"name": "uniform"}},
        ),
        ({"llm": {"name": "a", "source": "s"}}, {"llm": {"name": "b"}}, {"llm": {"name": "b", "source": "s"}}),
    ],
    ids=["another captioner", "the same", "not named", "another sampling", "a name of its own"],
)
def test_a_mapping_of_another_kind_replaces_the_old_one(base: dict, over: dict, merged: dict):
    assert merge(base, over) == merged
