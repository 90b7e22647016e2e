from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.params import TrainParams, load_params, merge, parse_params, read_yaml
from flame_core.workspace import resolve_params

ROOT = Path(__file__).parent.parent


def content() -> dict:
    return read_yaml(ROOT / "params.yaml")


def parse(raw: dict):
    return parse_params(raw, Path("params.yaml"), ROOT / "recipes")


def test_the_shipped_params_are_valid_and_overrule_the_recipe():
    params = parse(content())
    recipe = yaml.safe_load((ROOT / "recipes/flame.yaml").read_text())
    assert params.train["flame"].epochs == content()["train"]["epochs"] != recipe["epochs"]
    assert params.train["flame"].optimizer.betas == tuple(recipe["optimizer"]["betas"])


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"ingest": {"val_fracton": 0.1}}, r"ingest\.val_fracton: unknown key; did you mean 'val_fraction'"),
        ({"sources": {"mine": {"kind": "folder", "pth": "x"}}}, r"sources\.mine\.pth: unknown key.*'path'"),
        ({"sources": {"mine": {"kind": "ftp"}}}, r"sources\.mine: .*'debian', 'folder', 'hub', 'urls', 'webdataset'"),
        ({"text": {"layer": 0}}, r"text\.layer: .*greater than 0 \(got 0\)"),
        ({"text": {"template": {"raw": {"prefix": "no place", "facets": ["x"]}}}}, r"must contain \{caption\} exactly"),
        ({"train": {"epoch": 3}}, r"train\.epoch: unknown key; did you mean 'epochs'"),
        ({"train": {"kinds": ["long"]}}, r"recipe flame draws from \['long'\]"),
        ({"recipes": ["flam"]}, r"recipes\.0: .*flam\.yaml does not exist \(known recipes: .*flame"),
        ({"llm": {"trust_remote_code": True}}, r"trust_remote_code needs a source of the form hub:"),
        ({"llm": {"name": ".."}}, r"llm\.name: a name is made of .* \(got '\.\.'\)"),
        ({"evaluate": {"baselines": {"..": "timm:x"}}}, r"evaluate\.baselines\.\.\.: a name is made of"),
        ({"recipes": ["../recipes/flame"]}, r"recipes\.0: '\.\./recipes/flame': a name is made of"),
        ({"recipes": ["-x"]}, r"recipes\.0: '-x': a name is made of"),
        ({"recipes": ["x; touch y"]}, r"recipes\.0: 'x; touch y': a name is made of"),
        ({"sources": {"../x": {"kind": "folder", "path": "x"}}}, r"sources\.\.\./x: a name is made of"),
        (
            {"sources": {"x": {"kind": "folder", "path": "x", "language": "../x"}}},
            r"language: a language code looks like",
        ),
        ({"evaluate": {"languages": ["en", "../x"]}}, r"evaluate\.languages.*a language code looks like"),
        ({"evaluate": {"languages": [False]}}, r"put such a text in quotes"),
        ({"evaluate": {"train_language": "x/y"}}, r"evaluate\.train_language: a language code looks like"),
        (
            {"evaluate": {"gates": {"language_floors": {"x/y": 1.0}}}},
            r"language_floors\.x/y: a language code looks like",
        ),
        ({"train": {"optimizer": {"learning_rate": float("inf")}}}, r"learning_rate: .*finite number"),
        ({"llm": {"source": "pypi:--log==x#y"}}, r"llm\.source: .*write <package>==<version>"),
        ({"llm": {"source": "pypi:x==1 --index-url=y#z"}}, r"llm\.source: .*is not a valid package version"),
        ({"llm": {"source": "pypi:x==1; y#z"}}, r"llm\.source: .*is not a valid package version"),
        ({"llm": {"source": "pypi:x==1"}}, r"llm\.source: .*name the file in the wheel"),
        ({"llm": {"source": "hub:../x"}}, r"llm\.source: '\.\./x' is not a hub id"),
        ({"llm": {"source": "hub:a/b@../../x"}}, r"llm\.source: '\.\./\.\./x' is not a revision"),
        ({"llm": {"source": "ftp:x"}}, r"llm\.source: .*write hub:<id>@<revision>"),
        ({"llm": {"source": "path:x"}}, r"sha256 applies only to the wheel"),
        ({"llm": {"sha256": "0" * 63}}, r"llm\.sha256: "),
        ({"caption": {"long": {"captioner": "vlm", "prompt": "x", "model": "hub:/etc@1"}}}, r"not a hub id"),
        ({"evalute": {}}, r"evalute: unknown key; did you mean 'evaluate'"),
    ],
)
def test_a_mistake_names_file_key_and_what_is_accepted(over, message):
    with pytest.raises(ParamsError, match=f"(?s)params.yaml.*{message}"):
        parse(merge(content(), over))


def test_a_file_that_is_no_yaml_names_the_line(tmp_path):
    (tmp_path / "params.yaml").write_text("a: [1\nb: 2")
    with pytest.raises(ParamsError, match=r"(?s)params\.yaml is not valid YAML.*line 2"):
        read_yaml(tmp_path / "params.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ParamsError, match=r"params\.yaml does not exist"):
        read_yaml(tmp_path / "params.yaml")


def test_a_wrong_value_is_shown_in_part():
    with pytest.raises(ParamsError) as refused:
        parse(merge(content(), {"ingest": {f"key{n}": "x" * 10**6 for n in range(1000)}, "llm": {"name": "/" * 10**6}}))
    assert len(str(refused.value)) < 20_000 and "and 951 more" in str(refused.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a" * 10**6, r"--set 'a+…a+': write key=value"),
        ("=1", r"write key=value"),
        ("a..b=1", r"names separated by dots"),
        (".".join("a" * 5000) + "=1", r"at most 50 names"),
        ("train.epochs=" + "[" * 5000, r"nested more than 50 deep"),
        ("train.epochs=2026-01-01", r"timestamp"),
        ("train.epochs={a: 1, a: 2}", r"a: the key is given twice"),
    ],
)
def test_a_hostile_override_is_one_sentence(override, message):
    with pytest.raises(ParamsError, match=message) as refused:
        resolve_params(Layout.find(ROOT), [override], None)
    assert len(str(refused.value)) < 500


def test_merge_goes_key_by_key_and_leaves_its_arguments():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert merge(base, {"a": {"c": [3]}, "e": 2}) == {"a": {"b": 1, "c": [3]}, "d": 1, "e": 2}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 1}


def with_those_it_needs(name: str) -> list[str]:
    """A recipe, and those that it learns or inherits from."""
    recipe = read_yaml(next((ROOT / "recipes").glob(f"**/{name}.yaml")))
    links = [(recipe.get(link) or {}).get("recipe") for link in ("teacher", "inherit")]
    return list(dict.fromkeys([name, *(each for other in links if other for each in with_those_it_needs(other))]))


def test_every_recipe_and_preset_is_valid():
    for path in sorted((ROOT / "presets").glob("*.yaml")):
        parse_params(read_yaml(path), path, ROOT / "recipes")
    for path in sorted((ROOT / "recipes").glob("**/*.yaml")):
        parse(merge(content(), {"recipes": with_those_it_needs(path.stem), "text": {"sentence": {"final_norm": True}}}))


def test_load_params_reads_the_layout(tmp_path):
    from flame_core.layout import Layout

    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    assert load_params(Layout.find(tmp_path)).recipes == ["flame"]


def test_params_files_hold_every_key_that_the_graph_tracks():
    """DVC refuses to run a stage when a tracked key is absent, defaults or not."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    tracked = {key for stage in stages.values() for key in stage["params"] if isinstance(key, str)}
    for path in [ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml"))]:
        for key in tracked:
            value = read_yaml(path)
            for part in key.split("."):
                assert part in value, f"{path.name} lacks {key}"
                value = value[part]


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("**/*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid_alone_and_under_the_demo_s_values(path):
    TrainParams.model_validate(read_yaml(path))
    layout = Layout.find(ROOT)
    content = read_yaml(layout.params) | {"recipes": with_those_it_needs(path.stem)}
    content["train"].pop("kinds")  # a recipe's own kinds, of which the demo embeds two
    content["text"] |= {"train_kinds": ["raw", "short", "long"], "sentence": {"final_norm": True}}
    assert parse_params(content, layout.params, layout.recipes).train[path.stem].batch_size == 128


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("**/*.yaml")), ids=lambda path: path.stem)
def test_the_command_in_a_recipe_s_header_is_valid_as_it_is_written(path):
    command = path.read_text().partition("# Command:")[2].replace("\\\n#", " ").splitlines()[0]
    words = shlex.split(re.sub(r" +[(#].*", "", command))
    given = {flag: [value for name, value in pairwise(words) if name == flag] for flag in ("--set", "--preset")}
    preset = next(iter(given["--preset"]), None)
    params = resolve_params(Layout.find(ROOT), given["--set"], preset).params
    assert words[:2] == ["flame", "run"]
    assert path.stem in params.recipes


@pytest.mark.parametrize("path", sorted((ROOT / "presets").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_is_valid_and_says_what_it_takes(path):
    assert resolve_params(Layout.find(ROOT), [], path).params.recipes
    head = path.read_text().partition("\nsources:")[0]
    for word in ("Command:", "Hardware:", "Time:", "Score:"):
        assert word in head


@pytest.mark.parametrize(
    "values",
    [
        {"optimizer": {"betas": [0.9, 1.0]}},  # AdamW has no such average
        {"augmentation": {"ratio": [0.0, 1.0]}},  # whose logarithm is drawn
        {"augmentation": {"ratio": [1.5, 0.5]}},
        {"augmentation": {"scale": [0.9, 0.5]}},
        {"augmentation": {"scale": [0.0, 0.0]}},
        {"seed": -1},  # numpy has no such seed, by which weighted samples are drawn
        {"seed": 2**64},  # nor has torch
        {"objective": {"name": "infonce", "logit_scale": 0.5}},  # the first step would set both of these to the bound
        {"objective": {"name": "multi_positive_sigmoid", "logit_scale": 200.0}},
    ],
)
def test_values_that_no_training_can_use_are_refused(values):
    with pytest.raises(ValidationError, match=r"is no range|less than|greater than"):
        TrainParams.model_validate(values)


def test_the_bounds_of_a_training_s_values_are_allowed():
    augmentation = {"scale": [0.0, 1.0], "ratio": [1.0, 1.0]}
    TrainParams.model_validate({"augmentation": augmentation, "optimizer": {"betas": [0.0, 0.999]}})
    TrainParams.model_validate({"seed": 202611281820})  # a time
    for scale in (1.0, 100.0):
        TrainParams.model_validate({"objective": {"name": "infonce", "logit_scale": scale}})


def test_facet_tokens_and_their_loss_go_together():
    with pytest.raises(ValidationError, match=r"facet_sigmoid and model\.facet_blocks go together"):
        TrainParams.model_validate({"objective": {"name": "facet_sigmoid"}})
    with pytest.raises(ValidationError, match="go together"):
        TrainParams.model_validate({"model": {"facet_blocks": 2}})
