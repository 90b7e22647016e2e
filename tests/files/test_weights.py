from __future__ import annotations

import pytest
import torch
from torch import nn

from flame_core.files.weights import own_weights_sha256


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_digest_of_own_weights_is_that_of_their_bytes_without_adapters(dtype):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).to(dtype)
    before = own_weights_sha256(model)
    model[0].register_module("lora_A", nn.Linear(3, 1))  # its names hold ".lora_"
    assert own_weights_sha256(model) == before
    with torch.no_grad():
        model[2].bias[1] += 1
    assert own_weights_sha256(model) != before
    with torch.no_grad():
        model[2].bias[1] -= 1
    model[1].num_batches_tracked += 1  # a buffer
    assert own_weights_sha256(model) != before
