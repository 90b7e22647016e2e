"""The mean of many projected tokens with fewer matrix products equals the mean of LayerNorm(Linear(x))."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from flame_core.vision.mean_of_norms import SquaredLengths, mean_of_norms
from flame_core.vision.projector import PatchProjector

B, N, C, D = 3, 40, 12, 20


def layers(seed: int = 0) -> tuple[nn.Linear, nn.LayerNorm]:
    torch.manual_seed(seed)
    linear, norm = nn.Linear(C, D), nn.LayerNorm(D)
    nn.init.normal_(norm.weight, 1.0, 0.3)
    nn.init.normal_(norm.bias, 0.0, 0.3)
    return linear, norm


def gradients(loss: Tensor, of: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, of))


def test_value_and_gradients_are_those_of_the_usual_way():
    linear, norm = (module.double() for module in layers())
    x = torch.randn(B, N, C, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(B, D, dtype=torch.float64)
    inputs = [x, *linear.parameters(), *norm.parameters()]
    expected = norm(linear(x)).mean(dim=1)
    found = mean_of_norms(x, linear, norm)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    pairs = zip(gradients((found * weight).sum(), inputs), gradients((expected * weight).sum(), inputs), strict=True)
    for own, right in pairs:
        torch.testing.assert_close(own, right, rtol=1e-9, atol=1e-10)


def test_gradients_of_squared_lengths_are_numerically_right():
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    v = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(SquaredLengths.apply(x, v), (x @ v.T).square().sum(dim=1))
    assert torch.autograd.gradcheck(SquaredLengths.apply, (x, v))


def test_a_map_that_gives_the_same_for_all_channels_is_no_division_by_zero():
    linear, norm = layers()
    with torch.no_grad():
        linear.weight.copy_(linear.weight[:1].expand(D, C))
        linear.bias.zero_()
    assert mean_of_norms(torch.randn(B, N, C), linear, norm).isfinite().all()


@pytest.mark.parametrize("seed", [0, 1])
def test_in_bfloat16_it_is_as_close_to_float32_as_the_usual_way(seed, monkeypatch):
    torch.manual_seed(seed)
    projector = PatchProjector(16, 64)
    patches = torch.randn(4, 100, 16, requires_grad=True)
    target = torch.randn(4, 1, 64)

    def run() -> list[Tensor]:
        z = projector(patches)
        return [z, *gradients((z * target).sum(), [patches, *projector.parameters()])]

    def errors() -> list[float]:
        with torch.autocast("cpu", torch.bfloat16):
            return [((a - b).norm() / b.norm()).item() for a, b in zip(run(), exact, strict=True)]

    exact = run()
    usual = errors()
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: True))
    for (name, _), own, before in zip(
        [("z", 0), ("patches", 0), *projector.named_parameters()], errors(), usual, strict=True
    ):
        assert own < 2 * before + 2e-3, name


def test_few_tokens_and_evaluation_are_computed_the_usual_way(monkeypatch):
    called = []
    monkeypatch.setattr(
        "flame_core.vision.projector.mean_of_norms", lambda x, *_: called.append(len(x)) or x.new_ones(len(x), 64)
    )
    projector = PatchProjector(16, 64)
    projector(torch.randn(8, 100, 16))  # a CPU
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: True))
    projector(torch.randn(2, 100, 16))  # fewer than 4 tokens for each of 64 channels
    projector.eval()(torch.randn(8, 100, 16))
    assert called == []
    projector.train()(torch.randn(8, 100, 16))
    assert called == [8]
