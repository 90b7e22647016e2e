"""The cost model of towers against published numbers, and the refusal of a training that does not fit."""

from __future__ import annotations

import re

import pytest
import torch

from flame_core.errors import ResourceError
from flame_core.params import Params, TrainParams
from flame_core.text.memory import require_llm_memory
from flame_core.training.cost import image_cost
from flame_core.training.memory import require_training_memory
from tests.stages.pipeline import pipeline_params
from tests.training.world import HIDDEN, recipe

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 2}


def small(**changes) -> TrainParams:
    return recipe(model={"backbone_options": SMALL, "image_size": 32, **changes.pop("model", {})}, **changes)


@pytest.mark.slow
def test_flops_of_vit_b16_and_flame_s_projector():
    """ViT-B/16 at 224 px: 35.2 GFLOP; 30.17 M weights and 11.9 GFLOP of projector on 197 tokens (here 196)."""
    cost = image_cost(TrainParams(), hidden=5120, facets=7, samples=2_905_954)
    assert cost.forward_flops == pytest.approx(35.2e9 + 11.9e9 * 196 / 197, rel=0.01)
    assert cost.steps == 32 * (2_905_954 // 3072)
    assert cost.flops == pytest.approx(cost.steps * 3072 * 141e9, rel=0.01)
    assert cost.weights == pytest.approx(85.8e6 + 30.17e6, rel=0.01)


def test_activations_are_what_autograd_keeps():
    """Twice the blocks keep twice as much; recomputing keeps a fraction; a piece of a batch a piece."""
    whole = image_cost(small(), HIDDEN, 1, 1000)
    deep = image_cost(small(model={"backbone_options": SMALL | {"depth": 8}}), HIDDEN, 1, 1000)
    assert 1.7 < deep.activation_bytes / whole.activation_bytes < 2.0
    recomputed = image_cost(small(model={"checkpoint_activations": True}), HIDDEN, 1, 1000)
    assert recomputed.activation_bytes < 0.3 * whole.activation_bytes
    assert (whole.forwards, recomputed.forwards) == (1, 2)
    pieces = image_cost(small(batch_size=64, micro_batch_size=16), HIDDEN, 1, 1000)
    assert (pieces.held, pieces.forwards, pieces.steps) == (16, 2, 6 * 15)


def test_planning_leaves_the_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    image_cost(small(), HIDDEN, 1, 100)
    assert torch.rand(1) == expected


def test_a_gpu_that_is_too_small_says_what_is_missing_and_what_helps():
    params = small(batch_size=64)
    cost = image_cost(params, HIDDEN, 1, 1000)
    require_training_memory(params, HIDDEN, 1, 1000, 1, free=2 * cost.memory)
    free = int((cost.fixed_bytes + cost.loss_bytes + 20 * cost.activation_bytes) / 0.92)
    with pytest.raises(ResourceError, match=r"GB are missing. Set train.micro_batch_size to (\d+)") as refused:
        require_training_memory(params, HIDDEN, 1, 1000, 1, free)
    micro = int(re.search(r"micro_batch_size to (\d+)", str(refused.value))[1])
    assert micro == 16
    require_training_memory(small(batch_size=64, micro_batch_size=micro), HIDDEN, 1, 1000, 1, free)  # it does help
    with pytest.raises(ResourceError, match="checkpoint_activations to true"):
        require_training_memory(params, HIDDEN, 1, 1000, 1, free=1000)


def test_an_llm_that_does_not_fit_says_what_helps():
    params: Params = pipeline_params({"x": {"kind": "folder", "path": "x"}})
    require_llm_memory(params, weight_bytes=10 * 10**9, free=20 * 10**9)
    with pytest.raises(ResourceError, match=r"needs 40\.0 GB .* 20\.0 GB are free.*text\.dtype bfloat16 \(20\.0 GB\)"):
        require_llm_memory(params, weight_bytes=40 * 10**9, free=20 * 10**9)
