"""ProCLIP's alignment against its formula, written with loops."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from flame_core.objectives.structure import alignment


def drawn(seed: int, rows: int = 5) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("structure", [0.0, 3.0])
def test_it_is_the_mean_over_samples_and_the_mean_over_pairs(structure):
    x, e = drawn(1), drawn(2)
    near = sum(float((x[i] - e[i]).square().sum()) for i in range(5)) / 5
    far = []
    for i in range(5):
        for j in range(i):
            off = abs(float((x[i] - x[j]).norm() - (e[i] - e[j]).norm()))
            far.append(off**2 / 2 if off < 1 else off - 0.5)
    assert alignment(x, e, structure).item() == pytest.approx(near + structure * sum(far) / len(far), rel=1e-4)


def test_the_authors_sums_over_n_samples_are_n_times_it():
    x, e, n = drawn(3, 6), drawn(4, 6), 6
    pairs = F.smooth_l1_loss(F.pdist(x), F.pdist(e), reduction="sum")
    expected = F.mse_loss(x, e, reduction="sum") + pairs
    assert n * alignment(x, e, (n - 1) / 2).item() == pytest.approx(expected.item(), rel=1e-4)


def test_equal_vectors_have_a_finite_gradient_and_targets_none():
    x, e = drawn(1)[[0, 0, 1]].requires_grad_(), drawn(2)[:3].requires_grad_()
    alignment(x, e, 2.0).backward()
    assert x.grad is not None and torch.isfinite(x.grad).all() and e.grad is None
    assert alignment(drawn(1), drawn(1), 2.0).item() == pytest.approx(0, abs=1e-6)
