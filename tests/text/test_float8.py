import pytest
import torch
from torch import nn

from flame_core.errors import ComputationError
from flame_core.text.calibration import calibration_captions
from flame_core.text.encoder import TextEncoder
from flame_core.text.float8 import Float8Linear, compensated, quantise_layers, quantised, scale_of
from flame_core.text.llm import load_llm
from tests.conftest import text_params, tiny_llm


def test_the_largest_value_of_a_row_becomes_448_and_comes_back():
    x = torch.tensor([[0.5, -2.0, 0.0], [0.0, 0.0, 0.0]])
    values, scale = quantised(x)
    assert values.dtype == torch.float8_e4m3fn
    assert values.float()[0].tolist() == [112.0, -448.0, 0.0]
    torch.testing.assert_close(values.float() * scale, x)


def test_a_product_is_that_of_the_quantised_values():
    torch.manual_seed(0)
    linear = nn.Linear(32, 48)
    x = torch.randn(2, 5, 32)
    w, s_w = quantised(linear.weight)
    q, s_x = quantised(x.flatten(0, 1))
    expected = (q.double() * s_x) @ (w.double() * s_w).T + linear.bias
    found = Float8Linear(linear)(x)
    torch.testing.assert_close(found.flatten(0, 1).double(), expected, rtol=1e-5, atol=1e-5)
    exact = linear(x)
    assert (found - exact).norm() / exact.norm() < 0.05  # three bits of mantissa, averaged over the sum


def usual_inputs(tokens: int = 400) -> torch.Tensor:
    """Inputs of which some channels are much larger than others and go together, as in a language model."""
    torch.manual_seed(0)
    return torch.randn(tokens, 24) @ torch.randn(24, 64) * torch.logspace(-1, 1, 64)


def error_of(found: torch.Tensor, exact: torch.Tensor) -> float:
    return ((found - exact).norm() / exact.norm()).item()


def test_errors_that_later_channels_make_up_for_are_smaller():
    x, other = usual_inputs().split(200)
    weight = torch.randn(32, 64)
    scale = scale_of(weight)
    none = torch.empty(0, dtype=torch.long)
    found = compensated(weight / scale, x.T @ x, none).float() * scale
    values, _ = quantised(weight)
    exact = other @ weight.T
    assert error_of(other @ found.T, exact) < 0.5 * error_of(other @ (values.float() * scale).T, exact)


def test_channels_that_contribute_most_are_nearly_exact():
    x, other = usual_inputs().split(200)
    linear = nn.Linear(64, 32, bias=False)
    calibrated = Float8Linear(linear, x.T @ x)
    assert calibrated.weight.shape == (32, 64 + 2 * 8) and len(set(calibrated.exact.tolist())) == 8
    exact = linear(other).detach()
    assert error_of(calibrated(other), exact) < 0.5 * error_of(Float8Linear(linear)(other), exact)
    alone = torch.zeros_like(other).index_copy(1, calibrated.exact, other[:, calibrated.exact])
    assert error_of(calibrated(alone), linear(alone).detach()) < 0.004  # 2^-8, and 2^-4 if rounded once


def test_a_map_that_got_nothing_is_rounded_by_itself():
    linear = nn.Linear(64, 32)
    for moment in (torch.zeros(64, 64), torch.full((64, 64), torch.nan)):
        assert torch.equal(Float8Linear(linear, moment).weight.float(), Float8Linear(linear).weight.float())


def test_layers_are_calibrated_in_as_many_readings_as_there_is_room_for(monkeypatch):
    monkeypatch.setattr("flame_core.text.float8._MOMENTS", 2 * 4 * 64**2)
    model, readings = nn.Module(), []
    model.layers = nn.ModuleList([nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)) for _ in range(3)])

    def read() -> None:
        x = usual_inputs()
        for layer in model.layers:
            x = layer(x)
        readings.append([isinstance(own, Float8Linear) for layer in model.layers for own in layer])

    quantise_layers(model, read)
    assert readings == [[False] * 6, [True] * 2 + [False] * 4, [True] * 4 + [False] * 2]
    assert all(len(own.exact) == 8 for layer in model.layers for own in layer)


def test_the_captions_of_the_calibration_are_always_the_same():
    assert calibration_captions(2) == calibration_captions()[:2] and len(set(calibration_captions())) == 400


def test_an_encoder_in_float8_stays_near_float32(byte_tokenizer, tmp_path):
    tiny_llm("llama").save_pretrained(tmp_path)
    captions = ["A red kite.", "Two dogs play in the snow"]
    exact = TextEncoder(load_llm(tmp_path, 2, torch.float32, "cpu"), byte_tokenizer, text_params(layer=2), "cpu")
    model = load_llm(tmp_path, 2, torch.bfloat16, "cpu")
    coarse = TextEncoder(model, byte_tokenizer, text_params(layer=2, dtype="float8"), "cpu")
    assert any(isinstance(module, Float8Linear) for module in model.modules())
    cosine = (exact.encode("short", captions) * coarse.encode("short", captions)).sum(axis=-1)
    assert cosine.min() > 0.98


def test_a_model_without_layers_is_refused_by_name():
    with pytest.raises(ComputationError, match="Linear: no layer can be computed in float8"):
        quantise_layers(nn.Linear(2, 2))
