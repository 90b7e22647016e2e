"""The loss of facet tokens against its formula, term by term."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from flame_core.objectives.facet_sigmoid import FacetSigmoid
from flame_core.params import FacetSigmoidParams
from tests.objectives.terms import setup, share


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_a_text_meets_the_whole_of_every_picture_and_its_own_facet_of_it(weight):
    generator = torch.Generator().manual_seed(0)
    z = F.normalize(torch.randn(3, 1 + 4, 6, generator=generator), dim=-1)
    t = F.normalize(torch.randn(3, 2, 6, generator=generator), dim=-1)
    facets = torch.tensor([[1, 3], [3, 3], [1, 4]])  # facet 2 of no text
    params = FacetSigmoidParams(logit_scale=7.0, logit_bias=-2.0, facet_weight=weight)
    loss = share(FacetSigmoid(params, setup(3)), z, t, facets)

    def term(image: torch.Tensor, text: torch.Tensor, positive: bool) -> float:
        logit = 7.0 * float(image @ text) - 2.0
        return math.log1p(math.exp(-logit if positive else logit))

    expected = 0.0
    for i in range(3):
        for j in range(3):
            for k in range(2):
                expected += term(z[i, 0], t[j, k], i == j)
                expected += weight * term(z[i, int(facets[j, k])], t[j, k], i == j)
    assert loss.item() == pytest.approx(expected / 6, rel=1e-5)
