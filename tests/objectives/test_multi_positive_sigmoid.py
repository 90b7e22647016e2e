"""FLAME's loss against its formula, term by term, and SigLIP's as its special case."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from flame_core.objectives.batch import Moment
from flame_core.objectives.multi_positive_sigmoid import MultiPositiveSigmoid
from flame_core.params import MultiPositiveSigmoidParams
from flame_core.processes.ranks import ALONE
from tests.objectives.terms import batch_of, setup, share


def vectors(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float32), dim=-1)


@pytest.mark.parametrize("k", [1, 3])
def test_loss_is_the_formula(k):
    z, t = vectors(4, 8), vectors(4, k, 8)
    term = MultiPositiveSigmoid(MultiPositiveSigmoidParams(logit_scale=7.0, logit_bias=-3.0), setup(4))
    loss = share(term, z[:, None], t)
    expected = 0.0
    for i in range(4):
        for j in range(4):
            for m in range(k):
                logit = 7.0 * float(z[i] @ t[j, m]) - 3.0
                expected += math.log1p(math.exp(-logit if i == j else logit))
    assert loss.item() == pytest.approx(expected / (4 * k), rel=1e-5)


def test_auto_bias_is_the_log_odds_of_a_positive():
    loss = MultiPositiveSigmoid(MultiPositiveSigmoidParams(logit_bias="auto"), setup(128))
    assert loss.logit_bias.item() == pytest.approx(-math.log(127))
    assert loss.logit_scale.item() == pytest.approx(math.log(10))


def test_logits_stay_in_float32_under_autocast():
    z, t = vectors(4, 1, 8), vectors(4, 2, 8)
    term = MultiPositiveSigmoid(MultiPositiveSigmoidParams(), setup(4))
    with torch.autocast("cpu", torch.bfloat16):
        inside = share(term, z, t)
    assert inside.dtype == torch.float32
    assert inside.item() == pytest.approx(share(term, z, t).item(), rel=1e-6)


def test_scale_is_clamped_and_bias_is_free():
    term = MultiPositiveSigmoid(MultiPositiveSigmoidParams(), setup(4))
    with torch.no_grad():
        term.logit_scale.fill_(9.0)
        term.logit_bias.fill_(-77.0)
        term.after_step(setup(4).tower, {}, batch_of(torch.ones(4, 2)), Moment(0, 1, 1), ALONE)
    assert term.logit_scale.exp().item() == pytest.approx(100.0)
    assert term.logit_bias.item() == -77.0
