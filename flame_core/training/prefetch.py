"""Prepares the next batch while a step runs: in a thread, and on a GPU on a stream of its own.

So no step waits for the copy of its batch, for decoding on the GPU, or for Python to unpack what workers sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from flame_core.objectives.batch import Batch
from flame_core.training.loader import LoadedBatch

A = TypeVar("A")
B = TypeVar("B")


def batches_on(device: str, loader: Iterable[LoadedBatch]) -> Iterator[Batch]:
    """The loader's batches, as steps expect them, on a device."""
    if device == "cpu":
        for loaded in loader:
            yield loaded.on(device)
        return
    stream = torch.cuda.Stream()

    def start(loaded: LoadedBatch) -> tuple[LoadedBatch, torch.cuda.Event]:
        arrived = torch.cuda.Event()
        with torch.cuda.stream(stream):  # also selects this process's GPU in the thread
            moved = loaded.moved(device)
            arrived.record(stream)
        return moved, arrived

    for moved, arrived in prefetched(loader, start):
        current = torch.cuda.current_stream()
        current.wait_event(arrived)
        for tensor in moved.tensors():
            tensor.record_stream(current)
        yield moved.ready()


def prefetched(items: Iterable[A], prepare: Callable[[A], B]) -> Iterator[B]:
    """Every item in order, fetched and prepared by a thread while the one before is in use.

    What fetching or preparing an item raises is raised in its place.
    """
    left = iter(items)
    end = object()

    def following() -> B | object:
        item = next(left, end)
        return end if item is end else prepare(item)  # pyright: ignore[reportArgumentType]

    with ThreadPoolExecutor(1, "prefetch") as thread:
        future = thread.submit(following)
        while (prepared := future.result()) is not end:
            future = thread.submit(following)
            yield prepared  # pyright: ignore[reportReturnType]
