from __future__ import annotations

import pytest
from torch import nn

from flame_core.objectives import create_objective
from flame_core.params import MultiPositiveSigmoidParams, TrainParams
from flame_core.stepping.learning_rate import set_learning_rate
from flame_core.training.weight_groups import create_optimizer
from tests.objectives.terms import setup


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
