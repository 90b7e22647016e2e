"""Batches of pictures for a model under evaluation, prepared by threads while the model works on the batch before.

There are `FLAME_LOADER_WORKERS` threads, by default on a GPU only; batches do not depend on their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from flame_core.processes.threads import mapped, prefetched
from flame_core.settings import settings

A = TypeVar("A")
B = TypeVar("B", Tensor, dict[str, Tensor])


def prepared_batches(
    pictures: Sequence[bytes],
    size: int,
    one: Callable[[bytes], A],
    together: Callable[[list[A]], B],
    device: str | torch.device,
) -> Iterator[B]:
    """Batches on a device: `together` of what `one` makes of `size` pictures each; the last may be smaller."""
    threads = settings().decoding_processes(1)

    def prepare(part: Sequence[bytes]) -> B:
        batch = together(mapped(one, part, threads))
        return _each(batch, Tensor.pin_memory) if torch.device(device).type == "cuda" else batch

    parts = [pictures[start : start + size] for start in range(0, len(pictures), size)]
    for batch in prefetched(parts, prepare) if threads else map(prepare, parts):
        yield _each(batch, lambda tensor: tensor.to(device, non_blocking=True))


def _each(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return change(batch) if isinstance(batch, Tensor) else {name: change(tensor) for name, tensor in batch.items()}
