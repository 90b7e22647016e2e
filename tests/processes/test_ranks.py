"""Features of all ranks: what NCCL is given, which fills buffers one number after another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch import distributed as dist

from flame_core.processes.ranks import Ranks

ROWS, WORLD = 3, 2


@pytest.fixture
def nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks with equal tensors, whose collectives work on memory as it lies."""

    def all_gather(parts: list[Tensor], own: Tensor) -> None:
        for part in parts:
            _memory(part).copy_(_memory(own))

    def reduce_scatter(own: Tensor, whole: Tensor) -> None:
        _memory(own).copy_(WORLD * _memory(whole)[: own.numel()])

    monkeypatch.setattr(dist, "get_world_size", lambda: WORLD)
    monkeypatch.setattr(dist, "get_backend", lambda: "nccl")
    monkeypatch.setattr(dist, "all_gather", all_gather)
    monkeypatch.setattr(dist, "reduce_scatter_tensor", reduce_scatter)


def _memory(x: Tensor) -> Tensor:
    return x.as_strided((x.numel(),), (1,))


def test_a_permuted_gradient_reaches_the_features_in_their_order(nccl: None):
    x = torch.randn(ROWS, 2, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.arange(2.0 * WORLD * ROWS * 5).reshape(2, WORLD * ROWS, 5)
    gathered = Ranks(0, WORLD).gather(x)
    assert torch.equal(gathered, torch.cat([x, x]))
    (gathered.transpose(0, 1) * weight).sum().backward()  # views first, as SimCLR reads them
    assert x.grad is not None and torch.equal(x.grad, WORLD * weight.transpose(0, 1)[:ROWS])


def test_permuted_features_are_gathered_in_their_order(nccl: None):
    x = torch.randn(2, ROWS, 5, generator=torch.Generator().manual_seed(0)).transpose(0, 1)
    assert torch.equal(Ranks(0, WORLD).gather(x), torch.cat([x, x]))
