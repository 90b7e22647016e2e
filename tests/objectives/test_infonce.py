"""CLIP's loss against cross-entropy, slot by slot."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from flame_core.objectives.infonce import InfoNCE
from flame_core.params import InfoNCEParams
from tests.objectives.terms import setup, share


@pytest.mark.parametrize("k", [1, 3])
def test_loss_is_the_mean_of_both_cross_entropies_over_the_slots(k):
    generator = torch.Generator().manual_seed(0)
    z = F.normalize(torch.randn(5, 1, 8, generator=generator), dim=-1)
    t = F.normalize(torch.randn(5, k, 8, generator=generator), dim=-1)
    loss = share(InfoNCE(InfoNCEParams(logit_scale=14.0), setup(5)), z, t)
    labels = torch.arange(5)
    terms = []
    for slot in range(k):
        logits = 14.0 * z[:, 0] @ t[:, slot].T
        terms += [F.cross_entropy(logits, labels), F.cross_entropy(logits.T, labels)]
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)


def test_it_has_no_bias_to_report():
    assert InfoNCE(InfoNCEParams(), setup(5)).scalars() == pytest.approx({"logit_scale": 14.285714})
