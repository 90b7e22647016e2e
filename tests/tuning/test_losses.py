"""NMTune's terms against hand values and closed forms, their gradients, and what each does to features."""

from __future__ import annotations

import math

import pytest
import torch

from flame_core.measuring.spectrum import spectrum
from flame_core.tuning.head import LinearProbe, NMTuneHead, scaled
from flame_core.tuning.losses import (
    WEIGHTS,
    Weights,
    consistency,
    decorrelation,
    dominance,
    nmtune_loss,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_consistency_is_two_minus_two_cosines():
    z, f = normal(6, 5), normal(6, 5, seed=1)
    cosines = torch.nn.functional.cosine_similarity(z, f)
    assert consistency(z, f).item() == pytest.approx((2 - 2 * cosines).mean().item())
    assert consistency(3 * f, f).item() == pytest.approx(0, abs=1e-12)
    assert consistency(-f, f).item() == pytest.approx(4)
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    assert consistency(x, y).item() == pytest.approx(2)
    assert consistency(z, f, "element").item() == pytest.approx(consistency(z, f).item() / 5)
    assert consistency(z, f, "element").item() == pytest.approx(
        torch.nn.functional.mse_loss(z / z.norm(dim=1, keepdim=True), f / f.norm(dim=1, keepdim=True)).item()
    )
    target = f.clone().requires_grad_()
    consistency(z.clone().requires_grad_(), target).backward()
    assert target.grad is None


def test_decorrelation_by_hand_and_by_products_of_rows():
    z = torch.tensor([[1.0, 2.0], [2.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    # columns minus means: (-1, 0, 1) and (0, -2, 2); their covariance is 2 / 2 = 1, twice, over D = 2
    assert decorrelation(z).item() == pytest.approx(1.0)
    apart = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert decorrelation(apart).item() == pytest.approx(0)
    few = normal(7, 30)
    c = torch.cov(few.T)
    assert decorrelation(few).item() == pytest.approx(((c.square().sum() - c.diagonal().square().sum()) / 30).item())
    assert torch.autograd.gradcheck(decorrelation, (normal(4, 6).requires_grad_(),))
    assert torch.autograd.gradcheck(decorrelation, (normal(9, 3).requires_grad_(),))


def test_dominance_and_its_gradient_are_those_of_the_closed_form():
    z = normal(8, 5).requires_grad_()
    u, sigma, vh = torch.linalg.svd(z.detach(), full_matrices=False)
    total = sigma.sum()
    value = dominance(z)
    assert value.item() == pytest.approx(-(sigma[0] / total).item())
    assert dominance(z, "top").item() == pytest.approx(-1 / 5)  # all five of five
    assert dominance(normal(20, 9), "top").item() == pytest.approx(
        -(torch.linalg.svdvals(normal(20, 9))[:5] / torch.linalg.svdvals(normal(20, 9)).sum()).mean().item()
    )
    value.backward()
    closed = u[:, :1] @ vh[:1] / total - sigma[0] / total**2 * (u @ vh)
    assert z.grad is not None and torch.allclose(z.grad, -closed, atol=1e-14)
    assert torch.autograd.gradcheck(dominance, (normal(4, 6).requires_grad_(),))
    for degenerate in (torch.eye(4), torch.ones(4, 4), torch.diag(torch.tensor([2.0, 2.0, 0.0, 0.0]))):
        degenerate = degenerate.double().requires_grad_()
        dominance(degenerate).backward()
        assert degenerate.grad is not None and degenerate.grad.isfinite().all()


def test_the_loss_is_the_weighted_sum_and_says_every_term():
    f, z_w, z_s = normal(6, 5), normal(6, 5, seed=1), normal(6, 5, seed=2)
    logits, y = normal(12, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    ce = torch.nn.functional.cross_entropy(logits, torch.cat([y, y]))
    for weights in WEIGHTS.values():
        found = nmtune_loss(f, z_w, z_s, logits, y, weights)
        z = torch.cat([z_w, z_s])
        raw = {
            "mse": consistency(z_s, f, weights.mse_form),
            "cov": decorrelation(z),
            "svd": dominance(z, weights.svd_form),
        }
        total = ce + sum(getattr(weights, name) * value for name, value in raw.items())
        assert found["total"].item() == pytest.approx(total.item())
        for name, value in raw.items():
            assert found[name].item() == pytest.approx(value.item())
            assert found[f"{name}_w"].item() == pytest.approx(getattr(weights, name) * value.item())
    assert (WEIGHTS["paper"].mse, WEIGHTS["paper"].cov, WEIGHTS["paper"].svd) == (0.01, 0.01, 0.01)
    assert (WEIGHTS["code"].mse, WEIGHTS["code"].cov, WEIGHTS["code"].svd) == (1.0, 0.04, 0.001)
    assert WEIGHTS["code"].times(10).svd == pytest.approx(0.01) and WEIGHTS["code"].times(0).mse == 0


def test_a_head_without_its_mlp_keeps_features_exactly():
    f = normal(6, 5).float()
    head = NMTuneHead(5, 3).eval()
    torch.nn.init.zeros_(head.scale)
    z, logits = head(f)
    assert torch.equal(z, f) and logits.shape == (6, 3)
    assert consistency(z, f).item() == 0
    assert torch.equal(LinearProbe(5, 3)(f)[0], f)
    assert head.layers[0].out_features == 20 and not head.classifier.bias.any()
    torch.nn.init.constant_(head.scale, 2.0)
    assert torch.allclose(head(f)[0], 2 * head.layers(f) + f)


def test_features_are_read_at_one_scale():
    x = scaled(normal(4, 9).numpy() * 1e3)
    assert torch.allclose(x.norm(dim=1), torch.full((4,), 3.0))
    with pytest.raises(Exception, match="row 1 is 0 or not finite"):
        scaled(torch.tensor([[1.0, 0.0], [0.0, 0.0]]).numpy())


def tuned(weights: Weights) -> tuple[torch.Tensor, torch.Tensor]:
    """(f, z) of a toy after 250 steps: 64 dimensions, eight planted classes, two noisy views."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(128) % 8
    centres = torch.randn(8, 64, generator=generator) * 0.5
    f = centres[y] + torch.randn(128, 64, generator=generator)
    torch.manual_seed(0)
    head = NMTuneHead(64, 8)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    for _ in range(250):
        f_w, f_s = (f + 0.1 * torch.randn(128, 64, generator=generator) for _ in range(2))
        z, logits = head(torch.cat([f_w, f_s]))
        loss = nmtune_loss(f_w, z[:128], z[128:], logits, y, weights)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return f, head.eval()(f)[0].detach()


def test_each_term_alone_moves_its_own_statistic():
    """The toy of the specification: MSE keeps z near f, COV raises SVDE, SVD lowers LSVR."""

    def of(weights: Weights) -> dict[str, float]:
        f, z = tuned(weights)
        whole = spectrum(z.numpy(), "none")
        cosine = torch.nn.functional.cosine_similarity(z, f).mean().item()
        return {"svde": whole.svde, "lsvr": whole.lsvr, "cosine": cosine, "cov": decorrelation(z).item()}

    alone = of(Weights())
    assert of(Weights(mse=1.0))["cosine"] > max(0.8, alone["cosine"] + 0.2)
    decorrelated = of(Weights(cov=1.0))
    assert decorrelated["cov"] < 0.2 * alone["cov"] and decorrelated["svde"] > alone["svde"] + 0.1
    assert of(Weights(svd=1.0))["lsvr"] < 0.5 * alone["lsvr"]
    assert math.isfinite(alone["svde"])
