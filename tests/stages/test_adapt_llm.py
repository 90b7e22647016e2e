"""flame adapt-llm: adapters that embed reads with, the same after a kill, and clear refusals of mixed spaces."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_core import gates
from flame_core.adapting.fit import Fit
from flame_core.captions.table import read_captions, write_captions
from flame_core.digest import json_bytes, value_digest
from flame_core.errors import GateError, InputError, ParamsError
from flame_core.layout import Layout
from flame_core.params import LLMParams, Params
from flame_core.stages import adapt_llm, embed, embed_texts
from flame_core.text.encoder import TextEncoder
from flame_core.text.llm import SOURCE, read_source
from flame_core.text.llm_adapter import adapter_digest
from flame_core.text.manifest import read_manifest, require_fit, require_training_fit
from flame_core.text.store import TextStore
from flame_core.verification import write_digests
from tests.bits import flip
from tests.stages.adapted_world import adapted_world, choosing
from tests.stages.pipeline import tree
from tests.stages.units import computed_by, killed_after_step, steps_taken


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    """A project whose LLM has learned, and whose captions are embedded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        params, layout = adapted_world(tmp_path_factory.mktemp("adapted"), byte_tokenizer)
        before = tree(layout.llm)
        adapt_llm.run(params, layout)
        embed.run(params, layout)
        assert tree(layout.llm) == before
        yield params, layout


@pytest.fixture
def copy(world, tmp_path) -> tuple[Params, Layout]:
    """The same project in another place, which a test may change."""
    params, layout = world
    shutil.copytree(layout.root, tmp_path / "copy")
    return params, Layout.find(tmp_path / "copy")


def plain(params: Params) -> Params:
    return params.model_copy(update={"adapt_llm": None})


def test_held_out_captions_of_a_picture_come_nearer(world):
    _, layout = world
    found = json.loads((layout.llm_adapter / "ceilings.json").read_bytes())
    assert found["held_out"]["after"]["loss"] < found["held_out"]["before"]["loss"]
    assert set(found["before"]) == set(found["after"]) == {"en", "de"}
    assert found["after"]["en"] == {"recall@1": 1.0, "recall@3": 1.0}  # each text is itself the picture
    rows = [json.loads(line) for line in (layout.llm_adapter / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert rows[0]["before.loss"] == found["held_out"]["before"]["loss"]
    passed = {check.name: check.passed for check in gates.read(layout.llm_adapter)}
    assert passed["adapter_learned"] and passed["adapter_llm_unchanged"]
    assert "German" in (layout.llm_adapter / "adapter.html").read_text("utf-8")


def test_the_store_has_the_vectors_of_the_llm_with_the_adapters_as_peft_reads_them(world):
    from peft import PeftModel
    from transformers import AutoModel

    params, layout = world
    store = TextStore.open(layout.embeddings)
    caption = next(text for kind, text in store._places if kind == "raw" and text.startswith("Zeichnung"))
    encoder = TextEncoder.open(params, layout)
    stored = store.lookup("raw", [caption])
    np.testing.assert_allclose(stored, encoder.encode("raw", [caption]), atol=1e-3)
    base = TextEncoder.open(plain(params), layout)
    assert np.abs(stored - base.encode("raw", [caption])).max() > 0.02
    by_peft = PeftModel.from_pretrained(AutoModel.from_pretrained(layout.llm / "tiny"), layout.llm_adapter)
    sequence = encoder.facets.encode("raw", caption)  # one facet: an ordinary causal text
    with torch.no_grad():
        layers = by_peft(torch.tensor([sequence.ids]), output_hidden_states=True).hidden_states
    read = layers[params.text.layer][0, -1]
    np.testing.assert_allclose(stored[0, 0], read / read.norm(), atol=1e-3)


def test_the_manifests_name_the_adapters_and_nothing_is_embedded_twice(world):
    params, layout = world
    digest = adapter_digest(layout.llm_adapter)
    for folder in (layout.embeddings, layout.train_embeddings):
        assert read_manifest(folder)["llm"]["adapter"] == digest
    content = json.loads((layout.llm_adapter / "manifest.json").read_bytes())
    llm = value_digest(read_source(layout.llm / "tiny")["files"])
    assert (content["adapter"], content["llm"], content["params"]) == (digest, llm, params.adapt_llm.identity)
    shutil.rmtree(layout.work / "embed")
    adapt_llm.run(params, layout)
    computed = computed_by(lambda: embed.run(params, layout))
    assert len(computed) == len(list(layout.train_embeddings.glob("[0-9]*.safetensors")))


def test_texts_are_added_by_the_llm_with_the_adapters(world):
    params, layout = world
    before = tree(layout.embeddings)
    embed_texts.run(params, layout)
    assert tree(layout.embeddings) == before


def test_killed_after_any_step_it_continues_and_ends_with_the_same_bytes(world):
    params, layout = world
    first = tree(layout.llm_adapter)  # without a state
    for after in (1, 3, 5):
        shutil.rmtree(layout.work / "adapt_llm")
        killed_after_step(after, lambda: adapt_llm.run(params, layout))
        assert steps_taken(Fit, lambda: adapt_llm.run(params, layout)) == list(range(after, 6))
        assert tree(layout.llm_adapter) == first
    assert not list((layout.work / "adapt-llm-checkpoints").iterdir())
    assert computed_by(lambda: adapt_llm.run(params, layout)) == []


def test_sentences_can_be_learned_instead(copy):
    params, layout = copy
    sentence = {"read": "mean", "bidirectional": True, "final_norm": True, "layer": 3}
    text = type(params.text).model_validate({**params.text.model_dump(), "sentence": sentence})
    params = choosing(params.model_copy(update={"text": text}), reading="sentence", last_layers=1)
    adapt_llm.run(params, layout)
    config = json.loads((layout.llm_adapter / "adapter_config.json").read_bytes())
    assert config["target_modules"] == [
        "layers.2.mlp.down_proj",
        "layers.2.self_attn.q_proj",
        "layers.2.self_attn.v_proj",
    ]
    found = json.loads((layout.llm_adapter / "ceilings.json").read_bytes())
    assert found["held_out"]["after"]["loss"] < found["held_out"]["before"]["loss"]
    embed.run(params, layout)
    assert read_manifest(layout.train_embeddings / "sentence")["llm"]["adapter"] == adapter_digest(layout.llm_adapter)


def test_vectors_of_another_space_are_refused_by_name(copy):
    params, layout = copy
    manifest = read_manifest(layout.embeddings)
    require_fit(manifest, params, layout)
    with pytest.raises(InputError, match=r"llm\.adapter: the store has '\w{64}', this run wants None"):
        require_fit(manifest, plain(params), layout)
    with pytest.raises(InputError, match=r"llm\.adapter"):
        require_training_fit(read_manifest(layout.train_embeddings), plain(params), layout)
    other = choosing(params, seed=1)
    adapt_llm.run(other, layout)
    with pytest.raises(InputError, match=r"llm\.adapter: the store has '\w{64}', this run wants '\w{64}'"):
        require_fit(manifest, other, layout)
    with pytest.raises(InputError, match=r"trained with other values of params; run `flame adapt-llm`"):
        embed.run(params, layout)
    shutil.rmtree(layout.llm_adapter)
    require_training_fit(read_manifest(layout.train_embeddings), params, layout)  # a training needs no adapters
    with pytest.raises(InputError, match="run `flame adapt-llm`"):
        embed.run(params, layout)


def test_adapters_that_learned_other_captions_or_another_layer_are_refused_by_name(copy):
    params, layout = copy
    shallow = params.model_copy(update={"text": params.text.model_copy(update={"layer": 1})})
    with pytest.raises(InputError, match=r"trained with other values of reads; run `flame adapt-llm`"):
        embed.run(shallow, layout)
    path = sorted((layout.captions / "train").glob("*.parquet"))[0]
    rows = list(read_captions(path))
    write_captions(path, [replace(rows[0], text="something else"), *rows[1:]])
    write_digests(layout.captions)
    with pytest.raises(InputError, match=r"trained with other values of captions; run `flame adapt-llm`"):
        embed.run(params, layout)


def test_the_adapters_of_another_llm_are_refused_by_name(copy):
    params, layout = copy
    source = layout.llm / "tiny" / SOURCE
    content = json.loads(source.read_bytes())
    source.write_bytes(json_bytes({**content, "files": {"model.safetensors": "1"}}))
    write_digests(layout.llm)
    with pytest.raises(InputError, match=r"trained with other values of llm; run `flame adapt-llm`"):
        embed.run(params, layout)
    with pytest.raises(InputError, match=r"belong to the LLM tiny .*, and the LLM here has other files"):
        TextEncoder.open(params, layout)


def test_adapters_that_are_damaged_or_learned_nothing_are_refused(copy):
    params, layout = copy
    wanted = choosing(params, gates={"min_gain": 0.99})
    adapt_llm.run(wanted, layout)
    with pytest.raises(GateError, match=r"adapter_learned: by what share(.|\n)*adapt_llm\.gates\.min_gain"):
        embed.run(wanted, layout)
    adapt_llm.run(params, layout)
    flip(layout.llm_adapter / "adapter_model.safetensors", 2000, 3)
    with pytest.raises(InputError, match=r"adapter_model\.safetensors"):
        embed.run(params, layout)


def test_what_cannot_be_is_refused_by_key(world):
    params, layout = world
    with pytest.raises(ParamsError, match="has no section `adapt_llm`"):
        adapt_llm.run(plain(params), layout)
    with pytest.raises(ParamsError, match=r"adapt_llm.lora.targets: the LLM has no linear layer wq; it has .*q_proj"):
        adapt_llm.run(choosing(params, lora={"targets": ["wq"]}), layout)
    with pytest.raises(InputError, match=r"lower adapt_llm.batch_size"):
        adapt_llm.run(choosing(params, batch_size=60), layout)
    content = {**params.model_dump(mode="json"), "llm": LLMParams(name="tiny", source="path:x").model_dump()}
    with pytest.raises(ValueError, match=r"text.sentence is null: say there how"):
        Params.model_validate({**content, "adapt_llm": {"reading": "sentence"}})
    with pytest.raises(ValueError, match=r"needs bfloat16 or float32"):
        Params.model_validate({**content, "text": {**content["text"], "dtype": "float8"}})
    with pytest.raises(ValueError, match=r"micro_batch_size 9 is more than the batch of 6"):
        choosing(params, micro_batch_size=9)
