"""A teacher that a recipe cannot learn from is refused by `flame params check` and before the first step, by key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flame_core.digest import write_json
from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.params import Params, parse_params, read_yaml
from flame_core.training.recipe_check import link_faults, recipe_faults
from flame_core.training.teacher_check import require_teachable
from tests.suite import tiny_clip
from tests.training.distilled import distilled_recipe

ROOT = Path(__file__).parents[2]
SMALLER = {"backbone_options": {"img_size": 48, "patch_size": 8, "embed_dim": 96, "depth": 6, "num_heads": 3}}


def params(student: dict[str, Any], **teacher: Any) -> Params:
    """The demo's params with a recipe `student` that learns from `flame`, and changes of both."""
    made = parse_params(read_yaml(ROOT / "params.yaml"), Path("params.yaml"), ROOT / "recipes")
    flame = made.train["flame"]
    own = {"teacher": {"recipe": "flame"}, "terms": [{"name": "affinity"}]}
    content = flame.model_dump()
    small = {**content, "model": {**content["model"], **SMALLER}, **own, **student}
    trains = {
        "flame": type(flame).model_validate({**content, **teacher}),
        "student": type(flame).model_validate(small),
    }
    return made.model_copy(update={"recipes": list(trains), "train": trains})


def found(tmp_path: Path, made: Params) -> list[tuple[str, str]]:
    (tmp_path / "dvc.yaml").write_text("stages:\n  train: {cmd: b, outs: ['data/models/${item.recipe}']}\n")
    return [(".".join(fault.key), fault.message) for fault in link_faults(made, Layout.find(tmp_path), "student")]


def test_a_smaller_student_of_the_same_texts_is_fine(tmp_path):
    assert found(tmp_path, params({})) == []
    assert found(tmp_path, params({"kinds": ["raw"]})) == []


def test_a_student_that_is_larger(tmp_path):
    deeper = {"backbone_options": SMALLER["backbone_options"] | {"embed_dim": 192, "depth": 8}, "image_size": 48}
    ((key, message),) = found(tmp_path, params({"model": deeper}))
    assert key == "model" and "more than its teacher's 2," in message and "take a larger teacher" in message


def test_a_teacher_of_fewer_texts(tmp_path):
    ((key, message),) = found(tmp_path, params({}, kinds=["raw"]))
    assert key == "kinds" and "draws the texts short/1, short/2, short/3" in message
    assert "its teacher flame was trained only on raw/1" in message


def test_a_teacher_with_a_text_tower(tmp_path):
    ((key, message),) = found(tmp_path, params({}, text_tower={"width": 16, "depth": 1, "heads": 2}))
    assert key == "teacher" and "not in the space of the stored texts" in message


def test_a_teacher_of_words(tmp_path):
    lexical = {"objective": {"name": "lexical"}, "sidecars": {"lexical": "data/sidecars/lexical"}}
    own = parse_params(read_yaml(ROOT / "params.yaml"), Path("params.yaml"), ROOT / "recipes").train["flame"].model
    lexical["model"] = own.model_dump() | {"head": "lexical"}
    ((key, message),) = found(tmp_path, params({}, **lexical))
    assert key == "teacher" and "the z of flame are weights of words" in message
    assert found(tmp_path, params({"terms": [{"name": "feature", "feature": "pooled"}]}, **lexical)) == []


def test_a_recipe_without_terms_that_learn_from_it_is_not_looked_at(tmp_path):
    assert found(tmp_path, params({"terms": []}, kinds=["raw"])) == []


def test_a_folder_of_another_project_that_is_not_there(tmp_path):
    ((key, message),) = found(tmp_path, params({"teacher": {"model": "transformers:./clip"}}))
    assert key == "teacher.model" and message.startswith(f"{tmp_path / 'clip'} is no folder: correct the path")
    (tmp_path / "clip").mkdir()
    assert found(tmp_path, params({"teacher": {"model": "transformers:./clip"}})) == []
    on_the_hub = params({"teacher": {"model": "transformers:openai/clip@main"}})
    assert found(tmp_path, on_the_hub) == [] == list(recipe_faults(on_the_hub.train["student"]))


@pytest.mark.parametrize("dim", [24, 16, None])
def test_texts_have_the_dimensions_of_the_texts_that_they_learn(tmp_path, byte_tokenizer, dim):
    tiny_clip.save(tmp_path / "clip", byte_tokenizer, projection=24)
    learns = {
        "teacher": {"model": "transformers:./clip"},
        "text_projection": {"kind": "mlp", "layers": 2, "hidden": 8, "dim": dim},
        "terms": [{"name": "text_distillation"}],
    }
    faults = found(tmp_path, params(learns))
    if dim == 24:
        assert faults == []
        return
    ((key, message),) = faults
    assert key == "text_projection.dim" and message.endswith("have 24 dimensions: set it to 24")
    assert message.startswith("16, and the texts" if dim else "null, which stands for the 576 of the LLM, and the ")
    assert found(tmp_path, params({**learns, "terms": [{"name": "affinity"}]})) == []


def folder_of(tmp_path: Path, made: Params, **config: Any) -> Path:
    content = {"recipe": made.train["flame"].dump(), "facets": ["raw/1", "short/1"], **config}
    write_json(tmp_path / "config.json", content)
    return tmp_path


def test_the_trained_model_says_the_same_before_the_first_step(tmp_path):
    made = params({})
    student = made.train["student"]
    require_teachable(student, folder_of(tmp_path, made), ["raw/1", "short/1"])
    with pytest.raises(ParamsError, match=r"train\.kinds: this recipe draws the texts long/1"):
        require_teachable(student, folder_of(tmp_path, made), ["raw/1", "long/1"])
    with pytest.raises(ParamsError, match=r"train\.model: the student's backbone has"):
        require_teachable(made.train["flame"].model_copy(update={"terms": student.terms}), small(tmp_path), ["raw/1"])
    with pytest.raises(ParamsError, match=r"train\.teacher: .* is no model of this project"):
        require_teachable(student, folder_of(tmp_path, made, recipe={"id": "clip"}), ["raw/1"])


def small(folder: Path) -> Path:
    write_json(folder / "config.json", {"recipe": distilled_recipe().dump(), "facets": ["raw/1"]})
    assert json.loads((folder / "config.json").read_text())["recipe"]["model"]["image_size"] == 16
    return folder
