"""The processes of a training and the exchanges between them.

Each rank holds an equal part of every batch. Ranks exchange the IMAGES, never the texts: with FLAME's K = 6 texts of
5,120 numbers per image, that is a sixth of the traffic, and the texts are constants that need no gradient. gloo on a
CPU, NCCL on GPUs; started by `launcher`, one process per GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """This process among the processes of a training; by default the only one."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that reports and writes."""
        return self.rank == 0

    def gather(self, x: Tensor) -> Tensor:
        """[n, ...] of every rank as [world n, ...]; each rank's part receives the sum of all ranks' gradients."""
        return x if self.world == 1 else _Gather.apply(x, self.rank)

    @torch.no_grad()
    def sum_(self, *tensors: Tensor | None) -> None:
        """Replace each tensor by its sum over the ranks."""
        for tensor in tensors if self.world > 1 else ():
            if tensor is not None:
                dist.all_reduce(tensor)

    def any(self, flag: bool) -> bool:
        """Whether the flag of any rank is set."""
        device = "cuda" if self.world > 1 and dist.get_backend() == "nccl" else "cpu"
        told = torch.tensor([float(flag)], device=device)
        self.sum_(told)
        return bool(told.item() > 0)

    def least(self, number: int) -> int:
        """The least number of all ranks."""
        if self.world == 1:
            return number
        told = torch.tensor(number, device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(told, dist.ReduceOp.MIN)
        return int(told.item())

    def wrap(self, module: nn.Module, *, in_part: bool = False) -> nn.Module:
        """The module in DistributedDataParallel, which averages its gradients over the ranks during backward.

        With `in_part`, a forward need not use all of its weights.
        """
        if self.world == 1 or not any(p.requires_grad for p in module.parameters()):
            return module
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(
            module,
            gradient_as_bucket_view=True,
            find_unused_parameters=in_part,
            broadcast_buffers=False,  # none changes while the weights learn: batch norms are in evaluation mode
        )

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world > 1:
            dist.barrier()


ALONE = Ranks()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: int) -> Tensor:
        ctx.rank, ctx.rows = rank, len(x)
        x = x.contiguous()  # as the buffers must be, which NCCL fills one number after another
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        grad = grad.contiguous()  # it may be a permuted view
        if dist.get_backend() == "nccl":
            own = torch.empty_like(grad[: ctx.rows])
            dist.reduce_scatter_tensor(own, grad)
            return own, None
        # gloo has no reduce-scatter in every supported version
        dist.all_reduce(grad)
        return grad[ctx.rank * ctx.rows : (ctx.rank + 1) * ctx.rows], None


@contextmanager
def join(device: str) -> Iterator[Ranks]:
    """Join the processes that `launcher` started; the rank comes from the environment."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo", rank=rank, world_size=world)
    try:
        yield Ranks(rank, world)
    finally:
        dist.destroy_process_group()
