"""What concerns GPUs only: their free memory, what their generation can do, and errors that say what to set."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from flame_core.errors import ResourceError

USABLE_SHARE = 0.92  # of the free memory; the rest is lost in the allocator
_FLOAT8 = (8, 9)  # the first compute capability with matrix products in float8


def on_device(x: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of the host on a device; the host does not wait for pending computations."""
    on_gpu = torch.device(device).type == "cuda"
    return x.pin_memory().to(device, non_blocking=True) if on_gpu else x.to(device)


def free_memory() -> int:
    """Bytes of this process's GPU that are free, once torch has given back what it kept for later."""
    release_memory()
    free, _ = torch.cuda.mem_get_info()
    return free


def release_memory() -> None:
    """Give back what torch kept for later on this process's GPU, if it has used one; other processes cannot have it."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


@contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Say what to set if a GPU's memory runs out meanwhile.

    Raises:
        ResourceError: in place of torch's error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        first = str(error).partition(". ")[0]
        raise ResourceError(f"the GPU's memory ran out ({first}): {advice}") from error


def require_float8(device: str) -> None:
    """Refuse `text.dtype: float8` on a GPU that cannot multiply in float8.

    Raises:
        ResourceError: names the GPU.
    """
    if device == "cuda" and (found := torch.cuda.get_device_capability()) < _FLOAT8:
        raise ResourceError(
            f"text.dtype float8 needs a GPU of compute capability {_FLOAT8[0]}.{_FLOAT8[1]} or higher, and "
            f"{torch.cuda.get_device_name()} has {found[0]}.{found[1]}: set text.dtype to bfloat16"
        )
