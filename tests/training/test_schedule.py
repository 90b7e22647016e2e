from __future__ import annotations

import math

import pytest
from torch import nn

from flame_core.objectives import create_objective
from flame_core.params import MultiPositiveSigmoidParams, TrainParams
from flame_core.training.schedule import create_optimizer, learning_rate, set_learning_rate
from tests.objectives.terms import setup


def test_warm_up_rises_linearly_and_the_cosine_ends_near_zero():
    rates = [learning_rate(step, 110, 10, 2.0) for step in range(110)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[60] == pytest.approx(1.0)  # half way down
    assert rates[109] == pytest.approx(1.0 + math.cos(math.pi * 99 / 100))


def test_one_dimensional_parameters_and_the_loss_have_no_decay():
    params = TrainParams(objective=MultiPositiveSigmoidParams(learning_rate_multiplier=5.0))
    tower = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    optimizer = create_optimizer(tower, create_objective(params, setup(8)), params)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(tower[0].weight)] == 0.5
    assert decay[id(tower[0].bias)] == decay[id(tower[1].weight)] == 0.0
    set_learning_rate(optimizer, 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.1, 0.5])
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 3, 2]
