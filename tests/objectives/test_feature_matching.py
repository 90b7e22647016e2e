"""Matching of features against its formula."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flame_core.objectives.feature_matching import FeatureMatching
from flame_core.objectives.teacher import taught
from flame_core.params import FeatureParams
from flame_core.processes.ranks import ALONE
from tests.objectives.terms import batch_of, setup


def term_of(feature: str, size: int) -> FeatureMatching:
    torch.manual_seed(0)
    params = FeatureParams.model_validate({"feature": feature})
    return FeatureMatching(params, dataclasses.replace(setup(4), taught={feature: size}))


def drawn(seed: int, size: int) -> torch.Tensor:
    return torch.randn(4, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("feature", "own", "theirs"), [("z", 8, 8), ("z", 8, 6), ("pooled", 24, 40), ("cls", 24, 24)])
def test_it_is_the_squared_distance_of_directions_through_a_map_if_sizes_differ(feature, own, theirs):
    term = term_of(feature, theirs)
    assert isinstance(term.map, nn.Linear if own != theirs else nn.Identity)
    x, y = drawn(1, own), drawn(2, theirs)
    shape = (4, 1, 1, own) if feature == "z" else (4, 1, own)
    batch = batch_of(torch.ones(4, 1)).with_extra(**{taught(feature): y})
    (found,) = term({feature: x.view(shape)}, batch, ALONE).values()
    mapped = x @ term.map.weight.T if own != theirs else x
    expected = (2 - 2 * F.cosine_similarity(mapped, y)).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_only_the_student_and_the_map_learn():
    term = term_of("pooled", 40)
    x, y = drawn(1, 24).requires_grad_(), drawn(2, 40).requires_grad_()
    batch = batch_of(torch.ones(4, 1)).with_extra(**{taught("pooled"): y})
    (found,) = term({"pooled": x[:, None]}, batch, ALONE).values()
    found.backward()
    assert x.grad is not None and term.map.weight.grad is not None and y.grad is None
