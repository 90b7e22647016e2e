"""flame caption-lm: a connector learns through the frozen LLM, resumes bit for bit, and begins as params say."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load_file

from flame_core import gates
from flame_core.captioning import fit as fitting
from flame_core.captioning.start import started_config, started_tower
from flame_core.captioning.writer import PictureWriter
from flame_core.data.shards import PictureReader, read_index
from flame_core.digest import file_sha256
from flame_core.errors import ComputationError, InputError, ParamsError
from flame_core.graph.section_stages import section_stages
from flame_core.layout import Layout
from flame_core.pages.captions_section import captions_shown
from flame_core.params import CaptionLMParams, CaptionWriting, Params
from flame_core.settings import settings
from flame_core.stages import caption_lm, evaluate, train
from flame_core.verification import verify
from flame_core.vision.image_encoder import load_tower
from tests.bits import flip
from tests.captioning.world import CONNECTOR, described_project
from tests.stages.pipeline import tree

CHOSEN = {"recipe": "aligned", "steps": 12, "batch_size": 8, "warmup_steps": 2, "learning_rate": 3e-3, "cpu_threads": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    """A recipe's aligned model, and all that it was made of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        patch.setenv("FLAME_CHECKPOINT_SECONDS", "0")
        settings.cache_clear()
        params, layout = described_project(tmp_path_factory.mktemp("captioner"), byte_tokenizer)
        train.run(params, layout, "aligned")
        yield params, layout


def choosing(params: Params, **values) -> Params:
    return params.model_copy(update={"caption_lm": CaptionLMParams.model_validate(CHOSEN | values)})


def losses(layout: Layout) -> list[float]:
    lines = (layout.captioner / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_it_learns_captions_and_leaves_a_model_that_writes_them(world):
    params, layout = world
    caption_lm.run(choosing(params, steps=60), layout)
    found = losses(layout)
    assert len(found) == 60 and sum(found[-5:]) < 0.8 * sum(found[:5])
    checks = {check.name: check for check in gates.read(layout.captioner)}
    assert list(checks) == section_stages(layout, choosing(params))["caption_lm"]["meta"]["dagster"]["checks"]
    assert checks["captioner_llm_unchanged"].passed and checks["captioner_learned"].passed
    verify({layout.captioner: ["*"]})
    record = json.loads((layout.captioner / "captions.json").read_text())
    held_out = list(read_index(layout.shards, "val"))
    assert [row["key"] for row in record["captions"]] == [row.key for row in held_out]
    assert all(row["references"][0].split()[0] in ("red", "green", "blue", "gold") for row in record["captions"])
    reader = PictureReader(layout.shards)
    jpegs = [reader.jpeg(row) for row in held_out]
    writer = PictureWriter.load(layout.captioner, layout.llm / "tiny", "cpu")
    assert writer.captions(jpegs, CaptionWriting()) == [row["written"] for row in record["captions"]]
    page = (layout.captioner / "captioner.html").read_text()
    assert page.count("data:image/jpeg") == len(held_out) and "aligned" in page


def test_the_report_of_its_recipe_shows_its_captions_and_figures(world):
    params, layout = world
    evaluate.run(params, layout, "aligned")
    before = tree(layout.report("aligned"))
    own = choosing(params, steps=4)
    caption_lm.run(own, layout)
    evaluate.run(own, layout, "aligned")
    record = json.loads((layout.captioner / "captions.json").read_text())
    metrics = json.loads((layout.report("aligned") / "metrics.json").read_text())
    assert {name: metrics[f"captions/{name}"] for name in record["scores"]} == record["scores"]
    page = (layout.report("aligned") / "report.html").read_text()
    section = page.split('id="captions"')[1].split("</section>")[0]
    assert section.count("data:image/jpeg") == len(record["captions"])
    for row in record["captions"]:
        assert html.escape(row["references"][0]) in section
    assert f"CIDEr-D {record['scores']['cider']:.2f} of 10" in section and "BLEU-4" in section
    evaluate.run(params, layout, "aligned")
    assert tree(layout.report("aligned")) == before
    config = layout.captioner / "config.json"
    config.write_text(config.read_text().replace(file_sha256(layout.model("aligned") / "model.safetensors"), "0" * 64))
    with pytest.raises(InputError, match=r"captioner was trained from another model than .*aligned: run `flame capt"):
        captions_shown(layout.captioner, layout.model("aligned"), [])


def test_killed_at_any_step_it_resumes_and_ends_with_the_same_bytes(world, monkeypatch):
    params, layout = world
    wanted = choosing(params)
    caption_lm.run(wanted, layout)
    first = tree(layout.captioner)
    fit = fitting.fit
    for last in (0, 4):

        def killed(step: int, last: int = last) -> None:
            if step == last:
                raise KeyboardInterrupt

        shutil.rmtree(layout.work / "caption_lm")
        shutil.rmtree(layout.captioner)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(fitting, "fit", lambda *given, killed=killed: fit(*given, killed))
            caption_lm.run(wanted, layout)
        steps = sorted((layout.work / "caption-lm-checkpoints").glob("*/step-*"))
        assert steps[-1].name == f"step-{last + 1:08}"
        caption_lm.run(wanted, layout)
        assert tree(layout.captioner) == first


def test_a_flipped_bit_in_a_state_an_input_or_the_out_is_not_used(world, monkeypatch):
    params, layout = world
    wanted = choosing(params)
    caption_lm.run(wanted, layout)
    first, fit = tree(layout.captioner), fitting.fit

    def killed(step: int) -> None:
        if step == 4:
            raise KeyboardInterrupt

    shutil.rmtree(layout.work / "caption_lm")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fitting, "fit", lambda *given: fit(*given, killed))
        caption_lm.run(wanted, layout)
    last = sorted((layout.work / "caption-lm-checkpoints").glob("*/step-*"))[-1]
    for file in last.iterdir():
        flip(file, file.stat().st_size // 2, 2)
    caption_lm.run(wanted, layout)
    assert tree(layout.captioner) == first
    flip(layout.captioner / "model.safetensors", 5000, 1)
    with pytest.raises(InputError, match=r"model\.safetensors is damaged.*\n?.*flame caption-lm"):
        verify({layout.captioner: ["*"]})
    caption_lm.run(wanted, layout)
    assert tree(layout.captioner) == first
    for path in (layout.model("aligned") / "model.safetensors", layout.llm / "tiny/model.safetensors"):
        flip(path, 5000, 1)
        try:
            with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
                caption_lm.run(wanted, layout)
        finally:
            flip(path, 5000, 1)


def test_other_writing_trains_nothing_anew(world, monkeypatch):
    params, layout = world
    caption_lm.run(choosing(params), layout)
    monkeypatch.setattr(fitting, "fit", None)
    caption_lm.run(choosing(params, writing={"num_beams": 2, "max_new_tokens": 5}, gates={"min_distinct": 1}), layout)
    assert not next(check for check in gates.read(layout.captioner) if check.name == "captions_differ").passed


def test_it_begins_with_the_model_its_tower_or_nothing_of_it(world):
    _, layout = world
    source, llm = layout.model("aligned"), layout.llm / "tiny"
    given = load_tower(source)[0].state_dict()
    equal: dict[str, dict[str, bool]] = {}
    for start in ("aligned", "unaligned", "scratch"):
        chosen = CaptionLMParams.model_validate(CHOSEN | {"start": start})
        own = started_tower(chosen, source, started_config(chosen, source, llm, 64), 0.2).state_dict()
        equal[start] = {name: torch.equal(own[name], given[name]) for name in own}
        assert own["connector.scale"].item() == pytest.approx(0.1 if start == "aligned" else 0.2)
    assert all(equal["aligned"].values())
    assert all(same for name, same in equal["unaligned"].items() if not name.startswith("connector."))
    for name in ("connector.queries", "connector.output.weight"):
        assert not equal["unaligned"][name] and not equal["scratch"][name]
    assert not equal["scratch"]["backbone.blocks.0.attn.qkv.weight"]


def test_a_frozen_tower_stays_and_an_unaligned_start_may_have_another_connector(world):
    params, layout = world
    other = {**CONNECTOR, "prompts": 7}
    caption_lm.run(choosing(params, start="unaligned", connector=other, tower_rate=0, steps=3), layout)
    own = load_file(layout.captioner / "model.safetensors")
    before = load_file(layout.model("aligned") / "model.safetensors")
    assert own["connector.queries"].shape == (7, 16)
    assert all(torch.equal(own[name], before[name]) for name in own if not name.startswith("connector."))
    caption_lm.run(choosing(params, start="unaligned", steps=3), layout)
    moved = load_file(layout.captioner / "model.safetensors")
    assert not torch.equal(moved["backbone.blocks.0.attn.qkv.weight"], before["backbone.blocks.0.attn.qkv.weight"])
    assert torch.equal(moved["projector.layers.0.weight"], before["projector.layers.0.weight"])


def test_a_rate_that_is_too_high_is_named(world):
    params, layout = world
    message = r"step \d is not finite: lower caption_lm\.learning_rate \(1e\+30\)"
    with pytest.raises(ComputationError, match=message):
        caption_lm.run(choosing(params, learning_rate=1e30, clip_grad_norm=None), layout)


def test_what_cannot_be_is_refused(world, tmp_path):
    params, layout = world
    with pytest.raises(ParamsError, match="has no section `caption_lm`"):
        caption_lm.run(params, layout)
    config = layout.model("aligned") / "config.json"
    shutil.copytree(layout.model("aligned"), tmp_path / "other")
    content = json.loads(config.read_text())
    content["writes"]["llm"], content["writes"]["llm_name"] = "b" * 64, "Other-1B"
    (tmp_path / "other/config.json").write_text(json.dumps(content))
    chosen = CaptionLMParams.model_validate(CHOSEN)
    with pytest.raises(InputError, match=r"was trained for Other-1B \(bbbbbbbbbbbb\), and .*tiny holds tiny"):
        started_config(chosen, tmp_path / "other", layout.llm / "tiny", 64)
    del content["writes"], content["recipe"]["model"]["connector"]
    (tmp_path / "other/config.json").write_text(json.dumps(content))
    with pytest.raises(ParamsError, match="has no connector: take the model of a recipe"):
        started_config(chosen, tmp_path / "other", layout.llm / "tiny", 64)
    unaligned = CaptionLMParams.model_validate(CHOSEN | {"start": "unaligned"})
    with pytest.raises(ParamsError, match=r"caption_lm.connector: .* say its sizes"):
        started_config(unaligned, tmp_path / "other", layout.llm / "tiny", 64)
    with pytest.raises(ValueError, match="name one model: a recipe or a path"):
        CaptionLMParams(steps=3)
    with pytest.raises(ValueError, match="start aligned takes the model's own connector"):
        CaptionLMParams.model_validate(CHOSEN | {"connector": CONNECTOR})
