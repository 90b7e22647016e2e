"""Trainings of adapters on a tiny LLM: its weights stay, checkpoints hold adapters only, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flame_core.errors import ParamsError
from flame_core.params import OveruseParams
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.settings import settings
from flame_core.training.adapted_llm import AdaptedLLM, AdaptedSamples
from flame_core.training.loop import train
from flame_core.training.recipe_check import recipe_faults
from flame_core.training.texts import TrainingTexts
from tests.stages.pipeline import tree
from tests.training.adapted import LORA, adapted_recipe, adapted_samples, train_adapted, write_adapted
from tests.training.killed import train_killed
from tests.training.processes import on_ranks
from tests.training.test_seam import assert_alike
from tests.training.worded import worded_recipe


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[Path]:
    """A folder with two dozen pictures, their captions, a tiny LLM and its words."""
    folder = tmp_path_factory.mktemp("adapted")
    write_adapted(folder, byte_tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_CHECKPOINT_SECONDS", "0")
        settings.cache_clear()
        yield folder


def adapters(tower: torch.nn.Module | None) -> dict[str, torch.Tensor]:
    assert isinstance(tower, AdaptedLLM)
    return {name: weight.detach() for name, weight in tower.named_parameters() if ".lora_" in name}


def test_only_adapters_are_trained_and_kept(world, tmp_path):
    before = tree(world / "llm")
    params = adapted_recipe(epochs=20)
    trained = train_adapted(ALONE, world, tmp_path, params)
    losses = [row["loss/lexical"] for row in trained.metrics]
    assert losses[-1] < 0.8 * losses[0]
    assert trained.metrics[0]["loss/overuse/texts"] == 0 < trained.metrics[40]["loss/overuse/texts"]
    ups = [weight for name, weight in adapters(trained.text_tower).items() if "lora_B" in name]
    assert len(ups) == 2 * len(LORA["targets"]) and all(weight.abs().max() > 0 for weight in ups)
    assert tree(world / "llm") == before
    stored = load_file(world / "llm/tiny/model.safetensors")
    assert isinstance(trained.text_tower, AdaptedLLM)
    inside = dict(trained.text_tower.llm.base_model.model.named_parameters())
    for name, weight in stored.items():
        own = inside[name] if name in inside else inside[name.replace(".weight", ".base_layer.weight")]
        assert torch.equal(own, weight), name
    (part,) = sorted(tmp_path.glob("step-*/00000.pt"))[-1:]
    kept = [name for name in torch.load(part, weights_only=True)["model"] if name.startswith("towers.text.")]
    assert len(kept) == 2 * len(ups) and all(".lora_" in name for name in kept)
    texts: TrainingTexts = adapted_samples(world, params).texts
    texts.save(trained.text_tower, tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert len(saved) == len(kept) and (tmp_path / "adapter_model.safetensors").stat().st_size < 50_000


def test_killed_at_a_step_it_resumes_bit_for_bit(world, tmp_path):
    params = adapted_recipe()
    whole = train_adapted(ALONE, world, tmp_path / "whole", params)
    train_killed(train_adapted, world, tmp_path / "killed", params, 4)
    resumed = train_adapted(ALONE, world, tmp_path / "killed", params)
    assert resumed.metrics == whole.metrics
    own, expected = adapters(resumed.text_tower), adapters(whole.text_tower)
    assert {name: w.numpy().tobytes() for name, w in own.items()} == {
        name: w.numpy().tobytes() for name, w in expected.items()
    }


def test_adapters_of_an_llm_in_bfloat16_are_float32(world, tmp_path):
    params = adapted_recipe(epochs=10, precision="bfloat16")
    samples = adapted_samples(world, params)
    assert isinstance(samples.texts, AdaptedSamples)
    samples.texts.text = samples.texts.text.model_copy(update={"dtype": "bfloat16"})
    trained = train(samples, params, tmp_path)
    assert isinstance(trained.text_tower, AdaptedLLM)
    types = {"lora" if ".lora_" in name else "llm": w.dtype for name, w in trained.text_tower.named_parameters()}
    assert types == {"lora": torch.float32, "llm": torch.bfloat16}
    assert trained.metrics[-1]["loss/lexical"] < trained.metrics[0]["loss/lexical"]


def of_micro(ranks: Ranks, folder: Path, out: Path, micro: int | None, recompute: bool = False) -> dict:
    params = adapted_recipe(micro_batch_size=micro, lora=LORA | {"checkpoint_activations": recompute})
    trained = train_adapted(ranks, folder, out / f"{ranks.world}-{micro}-{recompute}", params)
    weights = {**dict(trained.tower.state_dict()), **adapters(trained.text_tower)}
    return {"weights": weights, "metrics": trained.metrics}


def test_two_ranks_pieces_and_recomputed_layers_give_the_weights_of_one(world, tmp_path):
    expected = of_micro(ALONE, world, tmp_path, None)
    assert_alike(of_micro(ALONE, world, tmp_path, 3), expected)
    assert_alike(of_micro(ALONE, world, tmp_path, None, recompute=True), expected)
    for of_rank in on_ranks(2, of_micro, tmp_path, world, tmp_path, 2):
        assert_alike(of_rank, expected)


def test_recomputed_layers_keep_less(world):
    samples, kept = adapted_samples(world, adapted_recipe()), {}
    ids = samples[[(0, number) for number in range(8)]].texts[:, 0]
    for recompute in (False, True):
        samples.texts._lora = adapted_recipe(lora=LORA | {"checkpoint_activations": recompute}).lora
        tower, sizes = samples.texts.encoder(), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):  # noqa: B023
            tower(ids)
        kept[recompute] = sum(sizes)
    assert kept[True] < 0.5 * kept[False]


def test_what_cannot_be_is_refused_by_key(world, tmp_path):
    with pytest.raises(ValueError, match=r"set objective.name and model.head to lexical"):
        adapted_recipe(objective={"name": "infonce"}, model={})
    with pytest.raises(ValueError, match="unset one of them"):
        adapted_recipe(text_tower={"width": 8, "depth": 1, "heads": 1})
    with pytest.raises(ValueError, match="set reading: sentence"):
        adapted_recipe(reading="facets")
    with pytest.raises(ParamsError, match=r"train.lora.targets: the LLM has no linear layer qkv; it has down_proj, "):
        train_adapted(ALONE, world, tmp_path, adapted_recipe(lora=LORA | {"targets": ["q_proj", "qkv"]}))
    faults = list(recipe_faults(worded_recipe(terms=[{"name": "overuse", "texts": 1.0}])))
    assert any("set lora, or take texts out" in fault.message for fault in faults)


def test_a_recipe_without_adapters_is_recorded_as_it_always_was():
    assert "lora" not in worded_recipe().model_dump()
    assert "texts" not in OveruseParams().model_dump()
