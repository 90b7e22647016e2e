"""SimCLR's and BYOL's losses against their formulas."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flame_core.objectives.attentive_mask import AVERAGE
from flame_core.objectives.batch import Moment
from flame_core.objectives.self_supervision import BYOL, SimCLR, head, nt_xent
from flame_core.objectives.term import Needs
from flame_core.params import BYOLParams, SimCLRParams
from flame_core.processes.ranks import ALONE
from tests.objectives.terms import batch_of, setup

WIDTH = 24  # of the backbone of `setup`


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def as_one_softmax(a: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent as one masked softmax of 2B x 2B."""
    logits = a @ a.T / temperature - 1e9 * torch.eye(len(a))
    return F.cross_entropy(logits, torch.arange(len(a)).roll(len(a) // 2))


def test_simclr_is_one_masked_softmax():
    a = vectors(16, 32)
    loss = nt_xent(a, torch.arange(16), 0.1)
    assert loss.item() == pytest.approx(as_one_softmax(a, 0.1).item(), rel=1e-6)
    parts = [nt_xent(a, rows, 0.1) for rows in torch.arange(16).split(3)]
    assert torch.stack(parts).sum().item() == pytest.approx(loss.item(), rel=1e-6)


def test_simclr_compares_two_different_views():
    """A view compared with itself has no pull: far lower, as in the released code, where both came from one view."""
    first = vectors(8, 256)
    second = F.normalize(first + 0.9 * vectors(8, 256, seed=1), dim=-1)
    different = nt_xent(torch.cat([first, second]), torch.arange(16), 0.1)
    itself = nt_xent(torch.cat([first, first]), torch.arange(16), 0.1)
    assert itself.item() < 0.01 and different.item() > 5 * itself.item()
    swapped = nt_xent(torch.cat([second, first]), torch.arange(16), 0.1)
    assert swapped.item() == pytest.approx(different.item(), rel=1e-6)


def test_simclr_of_a_term():
    torch.manual_seed(0)
    term = SimCLR(SimCLRParams(hidden=16, dim=8), setup(5))
    cls = torch.randn(5, 2, WIDTH)
    (loss,) = term({"cls": cls}, batch_of(torch.ones(5, 1)), ALONE).values()
    rows = torch.cat([cls[:, 0], cls[:, 1]])
    first, second, last = (layer for layer in term.head if isinstance(layer, nn.Linear))

    def normed(x):
        return ((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()).relu()

    a = normed(normed(rows @ first.weight.T) @ second.weight.T) @ last.weight.T
    assert loss.item() == pytest.approx(as_one_softmax(F.normalize(a, dim=-1), 0.1).item(), rel=1e-4)


def test_heads_keep_no_statistics():
    layers = head(4, 6, 3)
    assert [type(layer).__name__ for layer in layers] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert not list(layers.buffers()) and all(layer.bias is None for layer in (layers[0], layers[3]))
    x = torch.randn(7, 4)
    assert torch.equal(layers(x), layers.eval()(x))


def byol(views: int = 2):
    torch.manual_seed(0)
    term = BYOL(BYOLParams(hidden=16, dim=8), setup(5))
    cls = torch.randn(5, views, WIDTH, requires_grad=True)
    target = torch.randn(5, WIDTH, requires_grad=True)
    batch = dataclasses.replace(batch_of(torch.ones(5, 1)), extra={AVERAGE["cls"]: target})
    return term, cls, target, batch


@pytest.mark.parametrize("views", [1, 2])
def test_byol_is_two_minus_two_cosines(views):
    term, cls, target, batch = byol(views)
    (loss,) = term({"cls": cls}, batch, ALONE).values()
    b = term.predictor(term.projector(cls.flatten(0, 1))).view(5, views, 8)
    e = term.projector(target)[:, None]  # the average begins as a copy
    expected = (F.normalize(b, dim=-1) - F.normalize(e, dim=-1)).square().sum(-1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_byol_has_no_gradient_to_the_average():
    term, cls, target, batch = byol()
    (loss,) = term({"cls": cls}, batch, ALONE).values()
    loss.backward()
    assert target.grad is None and all(p.grad is None for p in term.target.parameters())
    assert cls.grad.abs().sum() > 0 and all(p.grad is not None for p in term.projector.parameters())


def test_byol_is_zero_when_the_prediction_is_the_target():
    term, cls, _, batch = byol(1)
    term.predictor = nn.Sequential()  # type: ignore[assignment]
    batch = dataclasses.replace(batch, extra={AVERAGE["cls"]: cls[:, 0]})
    (loss,) = term({"cls": cls}, batch, ALONE).values()
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_byols_projector_is_averaged_with_its_own_momentum():
    term, _, _, batch = byol()
    before = term.target.module[0].weight.clone()
    with torch.no_grad():
        term.projector[0].weight.add_(1.0)
    term.after_step(None, {}, batch, Moment(0, 10, 5), ALONE)
    torch.testing.assert_close(term.target.module[0].weight, before + 0.004)


def test_what_they_need():
    assert SimCLR.needs(SimCLRParams()) == Needs(views=2, reads=frozenset({"cls"}))
    assert BYOL.needs(BYOLParams(feature="pooled")) == Needs(reads=frozenset({"pooled"}))
