"""What the LLM with adapters costs, against a run that is counted, and against the numbers of the paper's setup."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.errors import ParamsError
from flame_core.params import LoraParams
from flame_core.text.cost import LLMShape
from flame_core.training.adapted_cost import ReadLLM, adapted_cost
from flame_core.training.cost import training_cost
from flame_core.training.counting import counted
from flame_core.training.linked_folders import LinkedFolders
from tests.training.adapted import DIMS, LAYERS, LORA, V, adapted_recipe, adapted_samples, adapted_text, write_adapted

LLAMA2 = LLMShape(4096, 32, 32, 32, 128, 11008, 32000)
ALL = LoraParams()


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    write_adapted(folder, byte_tokenizer)
    return folder


def test_the_adapters_of_the_papers_llm():
    """Rank 8 on all seven layers of Llama 2 7B, and rank 20 on those of attention, are near its 21 M weights."""
    llm = ReadLLM(LLAMA2, 32, "bfloat16", 60)
    assert adapted_cost(ALL, llm, 17_149, "bfloat16").weights == 19_988_480
    attention = LoraParams(rank=20, targets=["q_proj", "k_proj", "v_proj", "o_proj"])
    assert adapted_cost(attention, llm, 17_149, "bfloat16").weights == 20_971_520
    cost = adapted_cost(ALL, llm, 17_149, "bfloat16")
    assert cost.forward_flops == pytest.approx(2 * 6.5e9 * 60, rel=0.05)
    assert cost.frozen_bytes == pytest.approx(2 * 6.6e9, rel=0.05)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_run_of_a_tiny_llm_costs_as_much(world, recompute):
    lora = LoraParams.model_validate(LORA | {"targets": ALL.targets, "checkpoint_activations": recompute})
    samples = adapted_samples(world, adapted_recipe(lora=lora.model_dump()))
    tower = samples.texts.encoder()
    assert tower is not None
    ids = samples[[(0, number) for number in (1, 2)]].texts[:, 0]
    there = [*tower.parameters(), *tower.buffers(), ids]
    one, two = (counted(lambda n=n: tower(ids[:n]), there) for n in (1, 2))
    llm = ReadLLM(LLMShape.in_folder(world / "llm/tiny"), LAYERS, "float32", ids.shape[1])
    cost = adapted_cost(lora, llm, V, "float32")
    assert cost.weights == sum(weight.numel() for weight in tower.parameters() if weight.requires_grad)
    assert one.flops == pytest.approx(cost.forward_flops, rel=0.1)
    kept = two.kept_bytes - one.kept_bytes
    whole = adapted_cost(lora.model_copy(update={"checkpoint_activations": False}), llm, V, "float32").activation_bytes
    if recompute:
        kept += whole / LAYERS  # of the one layer that backward has run again
    assert cost.activation_bytes == pytest.approx(kept, rel=0.3)


def test_the_text_tower_is_part_of_a_recipes_cost(world):
    params = adapted_recipe(micro_batch_size=2)
    samples = adapted_samples(world, params)
    llm = ReadLLM.of(adapted_text(), LLMShape.in_folder(world / "llm/tiny"))
    assert llm.tokens == 3 + adapted_text().max_caption_tokens  # a BOS, `say` and `:`
    extra, linked = samples.stored(range(4)), LinkedFolders(sidecars=samples.sidecar_folders)
    cost = training_cost(params, DIMS, samples.slots, len(samples), extra=extra, linked=linked, llm=llm)
    text = cost.towers["text tower"]
    own = adapted_cost(LoraParams.model_validate(LORA), llm, V, "float32")
    assert text.weights == own.weights and text.held == 2 and text.own == 8
    assert text.flops == pytest.approx(own.forward_flops * 3)  # twice forward, in pieces, and backward as one
    with pytest.raises(ParamsError, match="follows from the LLM"):
        training_cost(params, DIMS, samples.slots, len(samples), extra=extra, linked=linked)
