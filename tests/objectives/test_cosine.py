"""LIFT's positives-only loss against its formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from flame_core.objectives.cosine import Cosine
from flame_core.params import CosineParams
from tests.objectives.terms import setup, share


@pytest.mark.parametrize("k", [1, 3])
def test_loss_is_one_less_the_mean_cosine_with_the_own_texts(k):
    generator = torch.Generator().manual_seed(0)
    z = F.normalize(torch.randn(5, 1, 8, generator=generator), dim=-1)
    t = F.normalize(torch.randn(5, k, 8, generator=generator), dim=-1)
    cosines = [float(z[i, 0] @ t[i, j]) for i in range(5) for j in range(k)]
    assert share(Cosine(CosineParams(), setup(5)), z, t).item() == pytest.approx(1 - sum(cosines) / len(cosines))


def test_it_is_torchs_cosine_embedding_loss():
    """Of the paper's code, with one text per picture."""
    z, t = torch.randn(6, 8), torch.randn(6, 8)
    expected = F.cosine_embedding_loss(z, t, torch.ones(6))
    found = share(Cosine(CosineParams(), setup(6)), F.normalize(z, dim=-1)[:, None], F.normalize(t, dim=-1)[:, None])
    torch.testing.assert_close(found, expected)


def test_it_has_nothing_to_learn():
    term = Cosine(CosineParams(), setup(5))
    assert list(term.parameters()) == [] and term.scalars() == {}
