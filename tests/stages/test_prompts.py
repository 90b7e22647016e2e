"""flame prompts: a head from stored vectors or a trained encoder, the same after a kill, and clear refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from safetensors.numpy import load_file

from flame_core import gates
from flame_core.data.shards import read_index
from flame_core.errors import GateError, InputError, ParamsError
from flame_core.graph.section_stages import section_stages
from flame_core.layout import Layout
from flame_core.params import Params, PromptsParams
from flame_core.params.text import SentenceParams
from flame_core.soft_prompts.fit import Fit
from flame_core.soft_prompts.frozen_llm import llm_digest
from flame_core.soft_prompts.prompt_head import PromptHead
from flame_core.stages import embed, prompts
from flame_core.text.store import Drawn, TrainStore
from flame_core.verification import verify
from tests.bits import flip, put_back
from tests.stages.pipeline import captioned_project, tree
from tests.stages.units import computed_by, killed_after, killed_after_step, steps_taken

CHOSEN = {"count": 3, "width": 16, "steps": 6, "batch_size": 4, "warmup_steps": 1, "held_out": 0.3, "written": 5,
          "cpu_threads": 1, "gates": {"min_overlap": 0.0}}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    """Shards, captions, facets and sentences of 40 drawings in several shards, and an LLM with a head."""
    root = tmp_path_factory.mktemp("prompts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        params, layout = captioned_project(root, byte_tokenizer, 40)
        with_head(layout)
        text = params.text.model_copy(update={"sentence": SentenceParams(read="last", layer=2, prompt="say {caption}")})
        evaluate = params.evaluate.model_copy(update={"languages": []})
        params = params.model_copy(update={"evaluate": evaluate, "text": text})
        embed.run(params, layout)
        yield params, layout


def with_head(layout: Layout) -> None:
    """Replace the tiny LLM, which has no output matrix of its own, by one that can write."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from flame_core.verification import write_digests

    folder = layout.llm / "tiny"
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(folder)
    config.architectures = ["LlamaForCausalLM"]
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    write_digests(layout.llm)


def choosing(params: Params, **values) -> Params:
    return params.model_copy(update={"prompts": PromptsParams.model_validate(CHOSEN | values)})


def test_the_head_makes_prompts_of_stored_vectors(world):
    params, layout = world
    prompts.run(choosing(params), layout)
    head = PromptHead.load(layout.prompts)
    assert (head.config.prompts, head.config.hidden, head.config.vector) == (3, 64, 64)
    assert head.config.llm == llm_digest(layout.llm / "tiny")
    assert head.config.source["slots"] == {"raw": ["raw/1"]}
    store = TrainStore(layout.embeddings)
    t = store.read([Drawn(row.shard, row.row, [0]) for row in read_index(layout.shards, "train")])[:, 0]
    assert head(t).shape == (len(t), 3, 64)
    rows = [json.loads(line) for line in (layout.prompts / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "lm", "vocab", "contrast", "gradient", "learning_rate", "held_out"} == set(rows[0]) - {"step"}
    assert rows[-1]["held_out"] < rows[0]["held_out"]
    weights = PromptsParams().weights
    for row in rows:
        total = row["lm"] + weights.vocab * row["vocab"] + weights.contrast * row["contrast"]
        assert row["loss"] == pytest.approx(total, rel=1e-5)
    page = (layout.prompts / "prompts.html").read_text("utf-8")
    assert "Held-out captions" in page and "drawing number" in page and "<svg" in page
    checks = {check.name: check for check in gates.read(layout.prompts)}
    assert set(checks) == {"prompts_reconstruct", "prompts_beat_chance", "prompts_llm_unchanged"}
    assert checks["prompts_llm_unchanged"].passed
    verify({layout.prompts: ["*"]})


def test_a_sentence_and_several_kinds_can_be_read(world):
    params, layout = world
    prompts.run(choosing(params, reading="sentence", kinds=["raw", "short"], steps=1), layout)
    source = PromptHead.load(layout.prompts).config.source
    assert source["slots"] == {"raw": ["raw/sentence"], "short": ["short/sentence"]}
    assert all(name.startswith("sentence/") for name in source["files"])


def test_an_encoder_needs_no_stored_vectors(world):
    params, layout = world
    own = {"width": 12, "layers": 1, "heads": 2}
    moved = layout.embeddings.with_name("elsewhere")
    layout.embeddings.rename(moved)
    try:
        prompts.run(choosing(params, encoder=own, contrast={"passes": 1}), layout)
    finally:
        moved.rename(layout.embeddings)
    head = PromptHead.load(layout.prompts)
    assert head.config.vector == 12 and head.config.source == {"vectors": "encoder"}
    assert load_file(layout.prompts / "encoder.safetensors")["tokens.weight"].shape == (301, 12)


def test_the_stage_of_an_encoder_depends_on_how_captions_are_read(world):
    params, layout = world
    encoder = {"width": 12, "layers": 1, "heads": 2}
    stored, own = (section_stages(layout, choosing(params, **more))["prompts"] for more in ({}, {"encoder": encoder}))
    assert "text" in own["params"] and "data/embeddings/train" not in own["deps"]
    assert "text" not in stored["params"] and "data/embeddings/train" in stored["deps"]


def test_an_encoder_learns_anew_if_other_captions_of_the_same_files_are_read(world, monkeypatch):
    """As in another language of training."""
    params, layout = world
    wanted = choosing(params, encoder={"width": 12, "layers": 1, "heads": 2}, steps=2)
    prompts.run(wanted, layout)
    first = tree(layout.prompts)
    read = prompts.read_sentences

    def others(*arguments):
        found = read(*arguments)
        return replace(found, texts=[text.replace("drawing", "dessin") for text in found.texts])

    monkeypatch.setattr(prompts, "read_sentences", others)
    prompts.run(wanted, layout)
    assert tree(layout.prompts)["head.safetensors"] != first["head.safetensors"]
    monkeypatch.undo()
    assert computed_by(lambda: prompts.run(wanted, layout)) == []
    assert tree(layout.prompts) == first


@pytest.mark.parametrize("more", [{}, {"encoder": {"width": 12, "layers": 1, "heads": 2}}], ids=["stored", "encoder"])
def test_killed_after_any_step_it_continues_and_ends_with_the_same_bytes(world, more):
    params, layout = world
    wanted = choosing(params, seed=3, **more)
    prompts.run(wanted, layout)
    first = tree(layout.prompts)
    for after in (1, 3, 5):
        shutil.rmtree(layout.work / "prompts")
        killed_after_step(after, lambda: prompts.run(wanted, layout))
        assert steps_taken(Fit, lambda: prompts.run(wanted, layout)) == list(range(after, 6))
        assert tree(layout.prompts) == first
    assert not list((layout.work / "prompts-checkpoints").iterdir())
    shutil.rmtree(layout.work / "prompts")
    killed_after(1, lambda: prompts.run(wanted, layout))  # the unit of the training begins within that of the result
    prompts.run(wanted, layout)
    assert tree(layout.prompts) == first
    assert computed_by(lambda: prompts.run(wanted, layout)) == []


def test_that_more_is_written_trains_nothing_again(world):
    params, layout = world
    prompts.run(choosing(params), layout)
    wanted = choosing(params, written=7)
    assert steps_taken(Fit, lambda: prompts.run(wanted, layout)) == []
    assert computed_by(lambda: prompts.run(wanted, layout)) == []


def test_a_damaged_state_or_unit_is_not_used(world):
    params, layout = world
    wanted = choosing(params, seed=4, steps=4)
    prompts.run(wanted, layout)
    first = tree(layout.prompts)
    for file in (layout.work / "prompts").glob("*/*.safetensors"):
        flip(file, file.stat().st_size - 9, 2)
    killed_after_step(2, lambda: prompts.run(wanted, layout))
    last = max((layout.work / "prompts-checkpoints").glob("*/step-*/00000.pt"))
    flip(last, last.stat().st_size // 2, 2)
    assert steps_taken(Fit, lambda: prompts.run(wanted, layout)) == [1, 2, 3]
    assert tree(layout.prompts) == first


def test_a_state_of_other_params_is_not_used(world):
    params, layout = world
    wanted = choosing(params, seed=5)
    killed_after_step(3, lambda: prompts.run(wanted, layout))
    other = choosing(params, seed=5, learning_rate=0.01)
    assert steps_taken(Fit, lambda: prompts.run(other, layout)) == list(range(6))
    assert steps_taken(Fit, lambda: prompts.run(wanted, layout)) == [3, 4, 5]


def test_a_flipped_bit_is_not_used(world):
    params, layout = world
    for path in (next(layout.train_embeddings.glob("[0-9]*.safetensors")), layout.llm / "tiny/model.safetensors"):
        with put_back(path):
            flip(path, path.stat().st_size - 20, 3)
            with pytest.raises(InputError, match=path.name):
                prompts.run(choosing(params), layout)


def test_what_is_not_reconstructed_stops_whoever_reads_it(world):
    params, layout = world
    prompts.run(choosing(params, gates={"min_overlap": 1.0}), layout)
    with pytest.raises(GateError, match=r"prompts_reconstruct: overlap .*threshold 1"):
        gates.require(layout.prompts)


def test_what_cannot_be_is_refused_by_key(world):
    params, layout = world
    with pytest.raises(ParamsError, match="has no section `prompts`"):
        prompts.run(params, layout)
    with pytest.raises(InputError, match=r"are \d+ to learn, of which a batch needs 999"):
        prompts.run(choosing(params, batch_size=999), layout)
    for values, said in (
        ({"count": 0}, "greater than 0"),
        ({"template": "{caption}{prompts}"}, "must hold {prompts} once, and end with {caption}"),
        ({"encoder": {"width": 10, "heads": 4}}, "cannot be divided among 4 heads"),
        ({"dropout": 0.0}, "two passes over a caption differ by dropout"),
        ({"dropout": 0.0, "encoder": {"masked": 0.0}}, "two passes over a caption differ by dropout"),
    ):
        with pytest.raises(ValueError, match=said.replace("{", r"\{")):
            PromptsParams.model_validate(values)
    whole = params.model_dump(mode="json")
    with pytest.raises(ValueError, match=r"prompts\.kinds has \['long'\]"):
        Params.model_validate(whole | {"prompts": {"kinds": ["long"]}})
    whole["text"]["sentence"] = None
    with pytest.raises(ValueError, match=r"prompts\.reading is sentence, and text\.sentence is null"):
        Params.model_validate(whole | {"prompts": {"reading": "sentence"}})
