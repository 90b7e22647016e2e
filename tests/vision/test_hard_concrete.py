"""Hard concrete masks: numbers of the spec, a Monte Carlo, and what is left without chance."""

from __future__ import annotations

import pytest
import torch

from flame_core.vision import hard_concrete

BETA = 2 / 3
ANCHORS = [(-1.0, 0.64534), (0.0, 0.83182), (1.0, 0.93077), (4.605, 0.99798)]


@pytest.mark.parametrize(("a", "expected"), ANCHORS)
def test_the_probability_that_a_unit_is_kept(a, expected):
    assert hard_concrete.probability(torch.tensor(a), BETA).item() == pytest.approx(expected, abs=5e-6)
    u = torch.rand(400_000, generator=torch.Generator().manual_seed(0))
    z = hard_concrete.sample(torch.full((1,), a), u, BETA)
    assert (z > 0).double().mean().item() == pytest.approx(expected, abs=1.5e-3)
    assert z.min() >= 0 and z.max() == 1


def test_a_mask_has_a_gradient_where_it_is_neither_0_nor_1():
    a = torch.zeros(3, requires_grad=True)
    z = hard_concrete.sample(a, torch.tensor([0.0, 0.5, 1.0]), BETA)
    z.sum().backward()
    torch.testing.assert_close(z.detach(), torch.tensor([0.0, 0.5, 1.0]))
    assert a.grad is not None
    torch.testing.assert_close(a.grad, torch.tensor([0.0, 1.2 * 0.25 / BETA, 0.0]))


def test_without_chance_as_many_are_0_as_are_expected_to_be():
    a = torch.tensor([3.0, -4.0, 2.0, -3.0, -2.0, 4.0])  # expected kept: 4.1 of 6
    kept = hard_concrete.probability(a, BETA).sum().item()
    z = hard_concrete.settled(a, BETA)
    assert (z == 0).nonzero().flatten().tolist() == [1, 3] and round(6 - kept) == 2
    others = torch.tensor([0, 2, 4, 5])
    torch.testing.assert_close(z[others], torch.sigmoid(a[others] / BETA * 0.8))


def test_of_equal_units_the_first_stay_and_at_least_one():
    z = hard_concrete.settled(torch.full((10,), -2.0), BETA)
    zeros = round(10 - 10 * hard_concrete.probability(torch.tensor(-2.0), BETA).item())
    assert (z == 0).tolist() == [False] * (10 - zeros) + [True] * zeros
    assert (hard_concrete.settled(torch.full((4,), -60.0), BETA) > 0).sum() == 1
