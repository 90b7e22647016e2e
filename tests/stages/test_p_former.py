"""A recipe with the term `prompts`: aligned to a head's prompts, without the LLM, known by the head's content."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flame_core import gates
from flame_core.digest import file_sha256, write_json
from flame_core.errors import InputError, ParamsError
from flame_core.graph.links import link_stage
from flame_core.layout import Layout
from flame_core.params import Params, PromptsParams, TrainParams, parse_params, read_yaml
from flame_core.preflight.linked_data import linked_data_faults
from flame_core.soft_prompts.prompt_head import PromptHead
from flame_core.stages import prompts, train
from flame_core.text.store import Drawn, TrainStore
from flame_core.training.recipe_check import link_faults, recipe_faults
from flame_core.verification import write_digests
from flame_core.vision.image_encoder import load_tower
from tests.captioning.heads import write_head
from tests.captioning.world import ALIGNED, CONNECTOR, OPTIONS, described_project
from tests.planning.trainings import planned, planned_without
from tests.stages.pipeline import ROOT


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        yield described_project(tmp_path_factory.mktemp("p-former"), byte_tokenizer)


@pytest.fixture
def folders(world):
    """The prompt head's folder, which is as it was afterwards."""
    _, layout = world
    folder, kept = layout.data / "prompts", layout.root / "kept"
    shutil.copytree(folder, kept)
    yield folder
    shutil.rmtree(folder)
    kept.rename(folder)


def changed(params: Params, **values) -> Params:
    return params.model_copy(update={"train": {"aligned": TrainParams.model_validate(ALIGNED | values)}})


def test_the_prompts_of_pictures_come_near_their_references_and_the_config_says_of_which_llm(world, monkeypatch):
    params, layout = world
    monkeypatch.setattr("transformers.AutoModel.from_pretrained", None)  # the LLM is not needed
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    train.run(changed(params, epochs=30), layout, "aligned")
    rows = [json.loads(line) for line in (layout.model("aligned") / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss/prompts"] > 0.5 and rows[-1]["loss/prompts"] < 0.5 * rows[0]["loss/prompts"]
    config = json.loads((layout.model("aligned") / "config.json").read_text())
    head = PromptHead.load(layout.data / "prompts").config
    expected = {"llm": head.llm, "llm_name": "tiny", "template": "{prompts}{caption}", "max_tokens": 32}
    assert config["writes"] == expected and config["recipe"]["prompts"] == "data/prompts"
    assert config["data"]["prompts"]["head.safetensors"] == file_sha256(layout.data / "prompts/head.safetensors")
    tower, _ = load_tower(layout.model("aligned"))
    assert tower.connector is not None and tower.connector.scale.item() == pytest.approx(0.1)
    t = TrainStore(layout.embeddings).read([Drawn("train/00000.tar", 0, [0])])
    p = PromptHead.load(layout.data / "prompts")(t[:, 0])
    assert tower(torch.zeros(1, 3, 16, 16), ("prompts",))["prompts"].shape == p.shape


def test_another_head_is_another_training_and_another_place_is_not(world, folders):
    params, layout = world
    train.run(params, layout, "aligned")
    before = {path.name for path in (layout.work / "train").glob("[!.]*")}
    shutil.copytree(folders, layout.root / "elsewhere")
    train.run(changed(params, prompts="elsewhere"), layout, "aligned")
    assert {path.name for path in (layout.work / "train").glob("[!.]*")} == before
    write_head(folders, json.loads((folders / "config.json").read_text())["llm"], scale=0.2)
    train.run(params, layout, "aligned")
    assert len({path.name for path in (layout.work / "train").glob("[!.]*")} - before) == 1


def test_what_the_stage_prompts_leaves_is_what_the_recipe_learns_from(world, folders):
    params, layout = world
    options = {"width": 16, "steps": 2, "batch_size": 4, "warmup_steps": 1, "written": 4, "cpu_threads": 1}
    section = PromptsParams.model_validate({"count": 4, **options, "gates": {"min_overlap": 0.0}})
    prompts.run(params.model_copy(update={"prompts": section}), layout)
    write_json(folders / gates.CHECKS, [])  # so few steps teach nothing
    write_digests(folders)
    train.run(params, layout, "aligned")
    config = json.loads((layout.model("aligned") / "config.json").read_text())
    assert config["data"]["prompts"]["head.safetensors"] == file_sha256(folders / "head.safetensors")


def test_a_plan_is_the_same_before_there_is_a_head(world, folders):
    params, layout = world
    section = PromptsParams.model_validate({"count": 4, "width": 16, "gates": {"min_overlap": 0.0}})
    params = params.model_copy(update={"prompts": section})
    found = planned(params, layout)
    assert "steps" in found["training: aligned"]
    assert planned_without(params, layout, layout.prompts) == found


def test_a_head_that_does_not_fit_is_refused_before_the_first_step(world, folders):
    params, layout = world
    llm = json.loads((folders / "config.json").read_text())["llm"]
    for head, refused, message in (
        ({"prompts": 6}, ParamsError, r"connector.prompts: 4, and the head in .* makes 6 prompts: set it to 6"),
        ({"llm": "b" * 64}, InputError, "these prompts are for tiny .* and the LLM is tiny"),
        ({"vector": 32}, ParamsError, "reads vectors of 32 numbers, and the recipe's texts have 64"),
        (
            {"source": {"slots": {"short": ["short/1"]}}},
            ParamsError,
            "draws the texts raw/1, and the head .* on short/1",
        ),
        ({"source": {}}, ParamsError, "does not read stored vectors"),
    ):
        write_head(folders, **{"llm": llm, **head})
        with pytest.raises(refused, match=message):
            train.run(params, layout, "aligned")


def test_another_number_of_prompts_is_found_before_anything_is_computed(world):
    params, layout = world
    assert [fault.message for fault in link_faults(params, layout, "aligned")] == []
    more = changed(params, model={**ALIGNED["model"], "connector": {**CONNECTOR, "prompts": 8}})
    (fault,) = link_faults(more, layout, "aligned")
    assert fault.key == ("model", "connector", "prompts") and "makes 4 prompts per caption" in fault.message
    assert linked_data_faults(params, layout) == []


def test_the_recipe_depends_on_the_head_and_has_no_faults_of_its_own(world):
    params, layout = world
    recipe = params.train["aligned"]
    assert link_stage(layout, "aligned", recipe)["deps"] == ["data/prompts"]
    assert list(recipe_faults(recipe)) == []
    without = TrainParams.model_validate({**ALIGNED, "model": {"backbone_options": OPTIONS, "image_size": 16}})
    assert "give the tower a connector" in next(recipe_faults(without)).message
    pruned = {"terms": [{"name": "prompts"}, {"name": "learned_masks"}], "inherit": {"path": "x"}}
    with pytest.raises(ValueError, match="a tower with a connector cannot be pruned"):
        TrainParams.model_validate({**ALIGNED, **pruned, "model": {"connector": CONNECTOR}})


def test_the_section_prompts_and_the_recipe_say_the_same():
    content = read_yaml(ROOT / "params.yaml") | {"recipes": ["p-former-align"]}
    content["text"] |= {"train_kinds": ["raw", "short"], "sentence": {}}

    def refused(prompts: dict, **recipe) -> str:
        own = {**content["train"], "kinds": ["raw"], **recipe}
        with pytest.raises(ParamsError) as error:
            parse_params(content | {"prompts": prompts, "train": own}, Path("params.yaml"), ROOT / "recipes")
        return str(error.value)

    assert "has 16 prompts per picture, and prompts.count is 8" in refused({"count": 8})
    assert "draws facets, and prompts.reading is sentence" in refused({"reading": "sentence"})
    said = refused({}, kinds=["raw", "short"])
    assert "p-former-align draws captions that have no prompts: short; set train.by_recipe.p-former-align.kinds" in said
    assert "kinds to [raw]" in said
    said = refused({"kinds": ["raw", "short"]}, kinds=["raw", "short"])
    assert "no prompts: short (its 3 facets; prompts are of the first one); set train.by_recipe" in said
    assert "one of prompts.kinds (short) that has one facet" in refused({"kinds": ["short"]}, kinds=["raw"])
    assert "set it to null" in refused({"encoder": {}})
