"""The contrast against its formula, and gradients of a batch in parts against those of the whole."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from flame_core.adapting.contrast import caption_contrast, held_out
from flame_core.adapting.fit import Fit
from flame_core.adapting.pairs import CaptionPairs
from flame_core.adapting.reading import CaptionReader
from flame_core.digest import write_json
from flame_core.params import AdaptLLMParams, LLMParams, LoraParams
from flame_core.text.encoder import TextEncoder
from flame_core.text.llm import SOURCE
from tests.conftest import text_params, tiny_llm

LORA = LoraParams(rank=2, alpha=4.0, targets=["q_proj", "o_proj", "up_proj"])
PAIRS = [
    (("raw", "red"), ("short", "something red")),
    (("raw", "a blue boat"), ("raw", "Boot")),
    (("short", "green tree"), ("raw", "Baum, so groß wie ein Haus")),
    (("raw", "house"), ("raw", "maison")),
]


def test_the_contrast_is_its_formula():
    draw = torch.Generator().manual_seed(0)
    a, b = (F.normalize(torch.randn(4, 8, generator=draw), dim=-1) for _ in range(2))
    again = torch.eye(4, dtype=torch.bool)
    again[0, 2] = again[2, 0] = True
    total = 0.0
    for i in range(4):
        others = [j for j in range(4) if j == i or not again[i, j]]
        for x, y in ((a, b), (b, a)):
            scores = [float(x[i] @ y[j]) / 0.1 for j in others]
            total += math.log(sum(map(math.exp, scores))) - float(x[i] @ y[i]) / 0.1
    assert float(caption_contrast(a, b, again, 0.1)) == pytest.approx(total / 8, rel=1e-5)


def test_a_pair_is_found_if_no_other_is_as_near():
    a = torch.eye(3)
    b = torch.tensor([[1.0, 0, 0], [0, 0.6, 0.8], [0, 0, 1.0]])  # the second of b is nearer to the third of a
    none = torch.zeros(3, 3, dtype=torch.bool)
    assert held_out(a, b, none, 0.1).recall == pytest.approx((3 / 3 + 2 / 3) / 2)
    ties = torch.ones(3, 3)
    assert held_out(ties, ties, none, 0.1).recall == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory, byte_tokenizer):
    folder = tmp_path_factory.mktemp("fit") / "tiny"
    tiny_llm("gemma3_text").save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    write_json(folder / SOURCE, {"name": "tiny", "source": "path:x", "files": {"model.safetensors": "0"}})
    return folder


def reader_of(folder, dtype: str = "float32", std: float = 0.1) -> CaptionReader:
    text = text_params(layer=2, dtype=dtype)
    encoder = TextEncoder.load(folder, text, LLMParams(name="tiny", source="path:x"), "cpu")
    torch.manual_seed(1)
    reader = CaptionReader(encoder, "facets", LORA, None)
    with torch.no_grad():
        for name, weight in sorted(reader.weights.items()):
            if "lora_B" in name:
                weight.normal_(std=std)
    return reader


def gradients(folder, tmp_path, **values) -> tuple[float, dict[str, torch.Tensor]]:
    params = AdaptLLMParams.model_validate({"batch_size": 4, **values})
    reader = reader_of(folder)
    fit = Fit(params, CaptionPairs([], params), reader, tmp_path)
    loss = fit.backward(PAIRS)
    return loss, {name: weight.grad for name, weight in reader.weights.items()}


def test_captions_are_read_as_embed_reads_their_first_facet(folder):
    reader = reader_of(folder)
    texts = [text for pair in PAIRS for text in pair]
    with torch.no_grad():
        together = reader.read(texts)
        apart = torch.cat([reader.read([text]) for text in texts])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-5)
    encoder = reader._encoder  # whose layers have the adapters
    for (kind, text), own in zip(texts, together, strict=True):
        expected = torch.from_numpy(encoder.encode(kind, [text]))[0, 0]
        torch.testing.assert_close(own, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("other", [{"micro_batch_size": 3}, {"micro_batch_size": 1}])
def test_parts_of_a_batch_have_the_gradients_of_the_whole(folder, tmp_path, other):
    loss, whole = gradients(folder, tmp_path)
    in_parts, parts = gradients(folder, tmp_path, **other)
    assert in_parts == pytest.approx(loss, rel=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-3, atol=1e-6)


def test_only_adapters_have_gradients_and_each_has_them(folder, tmp_path):
    _, found = gradients(folder, tmp_path)
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in found.values())
    assert len(found) == 2 * 2 * len(LORA.targets)
    assert all(name.startswith("base_model.model.layers.") and ".inner" not in name for name in found)


def test_gradients_are_those_of_the_loss(folder, tmp_path):
    """Against differences of the loss, for the weight of each adapter that changes it most."""
    params = AdaptLLMParams.model_validate({"batch_size": 4, "temperature": 0.5})
    reader = reader_of(folder)
    fit = Fit(params, CaptionPairs([], params), reader, tmp_path)
    fit.backward(PAIRS)
    for weight in reader.weights.values():
        gradient, own = weight.grad.clone().flatten(), weight.data.flatten()
        place, step = int(gradient.abs().argmax()), 0.02
        losses = []
        for sign in (1, -1):
            own[place] += sign * step
            losses.append(fit.backward(PAIRS))
            own[place] -= sign * step
        assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(float(gradient[place]), rel=0.05, abs=2e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_at_load_captions_are_read_as_in_training(folder, tmp_path, dtype):
    text, llm = text_params(layer=2, dtype=dtype), LLMParams(name="tiny", source="path:x")
    reader = reader_of(folder, dtype, std=0.2)
    with torch.no_grad():
        expected = reader.read(PAIRS[2])
    assert all(weight.dtype == torch.float32 for weight in reader.weights.values())
    for name, content in reader.files(("tiny", str(reader._encoder.llm_digest))).items():
        (tmp_path / name).write_bytes(content)
    merged = TextEncoder.load(folder, text, llm, "cpu", adapter=tmp_path)
    for (kind, caption), vector in zip(PAIRS[2], expected, strict=True):
        found = torch.from_numpy(merged.encode(kind, [caption]))[0, 0]
        assert float(found @ vector) > (1 - 1e-6 if dtype == "float32" else 0.999)


def test_recomputed_layers_have_the_same_gradients(folder, tmp_path, monkeypatch):
    _, whole = gradients(folder, tmp_path)
    monkeypatch.setitem(globals(), "LORA", LORA.model_copy(update={"checkpoint_activations": True}))
    _, again = gradients(folder, tmp_path)
    for name, gradient in whole.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-7)
