"""The text engine on a GPU, pretended and real: devices, waiting for copies, and the layout of products in float8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flame_core.text.encoder import DTYPES, TextEncoder
from flame_core.text.llm import load_llm
from tests.conftest import text_params, tiny_llm
from tests.gpus import GPUS, OLD_TORCH, on_a_gpu, wait
from tests.text.test_encoder import CAPTIONS

FAMILIES = ["llama", "mistral", "gemma2"]  # causal, with sliding windows, with soft-capping too
KINDS = ["raw", "short", "raw@reference"]


def embedded(folder: Path, tokenizer, dtype: str, device: str) -> list[np.ndarray]:
    """Vectors of captions as each kind, in rows of a few texts."""
    params = text_params(layer=2, dtype=dtype, batch_tokens=512)
    encoder = TextEncoder(load_llm(folder, 2, DTYPES[dtype], device), tokenizer, params, device)
    assert encoder.backend == ("flex" if device == "cuda" else "sdpa")
    return encoder.embed([encoder.tokenise(kind, CAPTIONS) for kind in KINDS])


def embedded_by_all(folder: Path, tokenizer, device: str) -> dict[str, list[np.ndarray]]:
    found = {family: embedded(folder / family, tokenizer, "float32", device) for family in FAMILIES}
    return found | {"float8": embedded(folder / "llama", tokenizer, "float8", device)}


@pytest.mark.parametrize("on", GPUS)
def test_it_gives_the_vectors_of_a_cpu(byte_tokenizer, tmp_path, on):
    for family in FAMILIES:
        tiny_llm(family).save_pretrained(tmp_path / family)
    expected = embedded_by_all(tmp_path, byte_tokenizer, "cpu")
    found = on(embedded_by_all, tmp_path, byte_tokenizer, "cuda")
    for family in FAMILIES:
        for own, vectors in zip(found[family], expected[family], strict=True):
            np.testing.assert_allclose(own, vectors, atol=1e-5)
    for own, vectors in zip(found["float8"], expected["float8"], strict=True):
        assert (own * vectors).sum(-1).min() > 0.97  # rounded in other places of a row


def use_wrongly() -> list[str]:
    x = torch.ones(3, device="cuda")
    assert x.is_cuda and str(x.device) == "cuda:0" and (x + 1).sum().item() == 6
    with pytest.raises(RuntimeError, match="on cuda:0 and on the CPU") as mixed:
        x + torch.ones(3)
    with pytest.raises(TypeError, match="numpy cannot read") as read:
        x.numpy()
    early = x.to("cpu", non_blocking=True)
    assert early.tolist() != [1, 1, 1]
    wait()
    assert early.tolist() == [1, 1, 1]
    return [str(mixed.value), str(read.value)]


@OLD_TORCH
def test_the_pretended_gpu_refuses_what_a_gpu_does():
    assert len(on_a_gpu(use_wrongly)) == 2
