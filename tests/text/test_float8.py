import pytest
import torch
from torch import nn

from flame_core.errors import ComputationError
from flame_core.text.encoder import TextEncoder
from flame_core.text.float8 import Float8Linear, quantise_layers, quantised
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
