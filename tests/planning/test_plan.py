"""`flame plan` of recipes with and without a text tower: the parts of a step, and the vocabulary of the LLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flame_core.layout import Layout
from flame_core.params import FolderSource, SelectionParams, SelectParams
from flame_core.planning.plan import plan, stage_costs
from flame_core.planning.start import given
from flame_core.text.cost import KNOWN
from flame_core.workspace import resolve_params
from tests.stages.pipeline import ROOT, write_pairs
from tests.suite import tiny_clip

TOWER = "{width: 32, depth: 1, heads: 2, max_tokens: 16}"


def test_the_parts_of_a_step(tmp_path: Path) -> None:
    overrides = ["recipes=[flame, lift]", "text.sentence={}"]
    params = resolve_params(Layout.find(ROOT), overrides, None).params
    clip = ["recipes=[clip]", f"train.by_recipe.clip.text_tower={TOWER}"]
    params.train["clip"] = resolve_params(Layout.find(ROOT), clip, None).params.train["clip"]
    layout = Layout(tmp_path, tmp_path)  # nothing is there yet
    sections = plan(params, layout, given(params, layout, 640, {}), tflops=1.0, processes=1)
    frozen, lift, trained = (sections[f"training: {name}"] for name in ("flame", "lift", "clip"))
    assert "text tower" not in frozen | lift
    assert "a picture has 1 view of" in frozen["image tower"]
    assert "a picture has 2 captions of" in trained["text tower"]  # raw and short, each read once
    assert "1 forward and a backward" in frozen["image tower"]
    assert "2 forwards and a backward" in lift["image tower"]  # its recipe recomputes activations
    assert trained["of that"].startswith("image tower ")
    shape = next(shape for source, shape in KNOWN.items() if params.llm.source.startswith(source))
    more = float(trained["trained weights"].split()[0]) - float(frozen["trained weights"].split()[0])
    table, positions, block, head = (shape.vocabulary + 1) * 32, 16 * 32, 12 * 32 * 32, 32 * shape.hidden
    assert abs(more * 1e6 - (table + positions + block + head)) < 1e5


def test_captions_of_a_server_have_tokens_and_a_cost(tmp_path: Path) -> None:
    server = "{captioner: server, model: some/vlm, prompt: Describe it., price: {input: 1.0, output: 2.0}}"
    params = resolve_params(Layout.find(ROOT), ["recipes=[flame]", f"caption.long={server}"], None).params
    layout = Layout(tmp_path, tmp_path)
    sections = plan(params, layout, given(params, layout, 640, {}), tflops=1.0, processes=1)
    found = sections["captions: long, by some/vlm"]
    assert found["tokens written"].endswith("(64 per answer)") and found["cost"].startswith("USD 0.")


def test_a_recipe_whose_links_are_not_there_yet(tmp_path: Path) -> None:
    params = resolve_params(Layout.find(ROOT), ["recipes=[flame]"], None).params
    linked = params.train["flame"].model_copy(update={"sidecars": {"labels": "data/sidecars/labels"}})
    layout = Layout(tmp_path, tmp_path)
    start = given(params, layout, 640, {})
    sections = plan(params.model_copy(update={"train": {"flame": linked}}), layout, start, tflops=1.0, processes=1)
    assert sections["training: flame"] == {"not counted": "sidecars.labels of the recipe is not there yet"}


def test_a_recipe_on_a_selection_that_is_not_there_yet(tmp_path: Path) -> None:
    """Its steps follow from the budget."""
    coded = ["codes.tower.path=a-model", "select.clusters=8", "select.selections.quarter.share=0.25"]
    overrides = [*coded, "recipes=[flame, tldr]", "train.batch_size=10", "train.epochs=3"]
    params = resolve_params(Layout.find(ROOT), overrides, None).params
    layout = Layout(tmp_path, tmp_path)
    sections = plan(params, layout, given(params, layout, 640, {}), tflops=1.0, processes=1)
    assert sections["training: tldr"]["steps"] == "48 of 10 pictures"  # of 160 pictures, three times
    assert sections["training: flame"]["steps"] == "192 of 10 pictures"


def test_a_recipe_with_noise_takes_what_it_takes_without(tmp_path: Path) -> None:
    params = resolve_params(Layout.find(ROOT), ["recipes=[flame, noise-30]", "noise.seed=0"], None).params
    layout = Layout(tmp_path, tmp_path)
    sections = plan(params, layout, given(params, layout, 640, {}), tflops=1.0, processes=1)
    assert sections["training: noise-30"] == sections["training: flame"]


def taught(
    teacher: dict[str, str], tmp_path: Path, width: int = 96, depth: int = 6, **more: Any
) -> dict[str, dict[str, str]]:
    """The plan of `flame` and a smaller student of that teacher, before anything is trained."""
    params = resolve_params(Layout.find(ROOT), ["recipes=[flame]"], None).params
    flame = params.train["flame"]
    options = {"backbone_options": {**flame.model.backbone_options, "embed_dim": width, "depth": depth}}
    content = flame.model_dump() | {"teacher": teacher, "terms": [{"name": "affinity"}]} | more
    student = type(flame).model_validate(content | {"model": flame.model.model_dump() | options})
    select = SelectParams(clusters=2, selections={"half": SelectionParams(mode="random", share=0.5)})
    both = params.model_copy(
        update={"recipes": ["flame", "student"], "train": {"flame": flame, "student": student}, "select": select}
    )
    layout = Layout(tmp_path, tmp_path)
    return plan(both, layout, given(both, layout, 640, {}), tflops=1.0, processes=1)


def test_a_teacher_that_is_not_trained_yet_is_counted_by_its_recipe(tmp_path: Path) -> None:
    sections = taught({"recipe": "flame"}, tmp_path)
    teacher, student = sections["training: flame"], sections["training: student"]

    def flops(section: dict[str, str], part: str) -> float:
        return float(section["FLOPs"]) * float(section[part].partition("%")[0]) / 100

    assert flops(student, "before the towers") == pytest.approx(flops(teacher, "image tower") / 3, rel=0.02)
    assert float(student["trained weights"].split()[0]) < float(teacher["trained weights"].split()[0])
    assert taught({"recipe": "flame"}, tmp_path, inherit={"recipe": "flame"})["training: student"] == student


def test_the_project_s_own_model_is_not_a_preset_s_teacher(tmp_path: Path) -> None:
    expected = taught({"recipe": "flame"}, tmp_path)
    own = resolve_params(Layout.find(ROOT), ["recipes=[flame]"], None).params.train["flame"]
    smaller = own.dump() | {"model": own.dump()["model"] | {"backbone_options": {"embed_dim": 6, "depth": 1}}}
    folder = Layout(tmp_path, tmp_path).model("flame")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"recipe": smaller}))
    assert taught({"recipe": "flame"}, tmp_path) == expected
    assert taught({"recipe": "flame"}, tmp_path, inherit={"recipe": "flame"}) == expected


def test_stored_vectors_of_a_teacher_are_counted_once(tmp_path: Path) -> None:
    """320 steps of 8 pictures in 4 epochs: half of the crops are half of the teacher's work beside the training."""
    beside = taught({"recipe": "flame"}, tmp_path)["training: student"]
    stored = taught({"recipe": "flame", "copies": 2}, tmp_path)["training: student"]
    assert "before the towers" in beside and "before the towers" not in stored
    once = float(stored["teacher's vectors"].partition(" ")[0])
    online = float(beside["FLOPs"]) * float(beside["before the towers"].partition("%")[0]) / 100
    epochs = int(beside["steps"].split()[0].replace(",", "")) * int(beside["steps"].split()[2]) / 640
    assert once == pytest.approx(online * 2 / epochs, rel=0.02)
    assert float(stored["FLOPs"]) == pytest.approx(float(beside["FLOPs"]) - online + once, rel=0.01)


def test_a_teacher_of_another_project_is_counted_if_it_is_here(tmp_path: Path, byte_tokenizer) -> None:
    clip = tiny_clip.save(tmp_path / "clip", byte_tokenizer)
    (refused,) = taught({"model": "transformers:openai/clip"}, tmp_path)["training: student"].values()
    assert (
        refused == "its teacher transformers:openai/clip is not on this machine: fetch it, and name its folder or file"
    )
    counted = taught({"model": f"transformers:{clip}"}, tmp_path, width=24, depth=1)["training: student"]
    assert "before the towers" in counted
    selected = {"selection": "data/selections/half.parquet"}
    half = taught({"model": f"transformers:{clip}"}, tmp_path, width=24, depth=1, **selected)["training: student"]
    assert "before the towers" in half
    assert float(half["FLOPs"]) == pytest.approx(float(counted["FLOPs"]) * 2 / 5, rel=0.01)  # 2 steps, not 5, an epoch
    (tmp_path / "clip.pt").touch()
    (refused,) = taught({"model": "open_clip:ViT-B-16@clip.pt"}, tmp_path)["training: student"].values()
    assert "open_clip" in refused and "not on this machine" not in refused
    (refused,) = taught({"path": "models/old"}, tmp_path)["training: student"].values()
    assert refused.endswith("models/old is not there yet")


def test_what_auto_stands_for_is_part_of_the_plan(tmp_path: Path) -> None:
    """Before ingest, for the pairs in the folder that is to be used."""
    write_pairs(tmp_path / "pairs", range(64))
    names = ("ingest.val_fraction", "train.batch_size", "train.epochs", "train.warmup_steps")
    params = resolve_params(Layout.find(ROOT), [f"{name}=auto" for name in names], None).params
    source = FolderSource(kind="folder", path=str(tmp_path / "pairs"))
    params = params.model_copy(update={"sources": {"pairs": source}})
    layout = Layout(tmp_path, tmp_path)
    start = given(params, layout, None, {})
    assert "pictures estimated from the sources" in start.basis
    assert 32 <= start.images < 60  # about 0.7 of 64, by a hash: a batch of 8
    section = plan(params, layout, start, tflops=1.0, processes=1)["training: flame"]
    steps = start.images // 8 * 100
    assert section["steps"] == f"{steps} of 8 pictures"
    assert section["of these"] == f"auto: batch_size 8, epochs 100, warmup_steps {steps // 10}"
    costs = stage_costs(params, layout, None)
    assert costs["ingest"] == "auto: val_fraction 0.3"
    assert costs["train@flame"].startswith(f"{steps} steps of 8 pictures, ")
    assert costs["train@flame"].endswith(f"; {section['of these']}")
