import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.float8_recall import Emulated, compensated, ranks_of, rounded
from flame_core.text.float8 import Float8Linear, quantised


def activations(tokens: int = 400) -> torch.Tensor:
    """Inputs of which some channels are much larger than others and go together, as in a language model."""
    torch.manual_seed(0)
    return torch.randn(tokens, 24) @ torch.randn(24, 64) * torch.logspace(-1, 1, 64)


def test_the_emulation_is_what_the_engine_computes():
    x, linear = activations(), nn.Linear(64, 32)
    torch.testing.assert_close(Emulated(linear)(x), Float8Linear(linear)(x), rtol=1e-5, atol=1e-4)


def test_errors_that_later_channels_make_up_for_are_smaller():
    x, other = activations().split(200)
    weight = torch.randn(32, 64)
    found = compensated(weight, x.T @ x)
    steps = found / quantised(weight)[1]
    torch.testing.assert_close(steps.to(torch.float8_e4m3fn).float(), steps, rtol=1e-5, atol=0)  # values of float8
    errors = [
        ((other @ (own - weight).T).norm() / (other @ weight.T).norm()).item() for own in (found, rounded(weight))
    ]
    assert errors[0] < 0.5 * errors[1]


def test_channels_that_contribute_most_are_exact():
    x, linear = activations(), nn.Linear(64, 32, bias=False)
    exact = F.linear(x, linear.weight)
    few, none = (((Emulated(linear, x.T @ x, kept)(x) - exact).norm() / exact.norm()).item() for kept in (16, 0))
    assert few < 0.7 * none
    assert (Emulated(linear, x.T @ x, 64)(x) - exact).norm() / exact.norm() < 1e-6


def test_each_caption_looks_for_each_other_one():
    first = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), dim=-1)
    second = first[[0, 2, 1]]  # pictures 1 and 2 have each other's caption
    assert ranks_of([first, second]).tolist() == [[0, 1, 1], [0, 1, 1]]
    assert ranks_of([first, first, first]).sum() == 0 and ranks_of([first, first, first]).shape == (6, 3)
