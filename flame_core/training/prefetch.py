"""Prepares the next batch while a step runs: in a thread, and on a GPU on a stream of its own.

So no step waits for the copy of its batch, for decoding on the GPU, or for Python to unpack what workers sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from flame_core.errors import ResourceError
from flame_core.objectives.batch import Batch
from flame_core.processes.threads import prefetched
from flame_core.training.loader import LoadedBatch


def batches_on(device: str, loader: Iterable[LoadedBatch]) -> Iterator[Batch]:
    """The loader's batches, as steps expect them, on a device.

    Raises:
        ResourceError: a process of the loader was killed, or shared memory is full.
    """
    try:
        yield from _batches_on(device, loader)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            if "</torch_" in str(error):  # the name of a tensor's file in /dev/shm
                raise ResourceError(
                    f"the samples' places and captions do not fit into shared memory ({error}): give /dev/shm more "
                    "room (of a container: --shm-size), or set FLAME_LOADER_WORKERS to 0"
                ) from error
            raise
        raise ResourceError(
            f"a process that decodes pictures ended ({str(error).splitlines()[0]}): set FLAME_LOADER_WORKERS to less, "
            "or give /dev/shm more room (of a container: --shm-size), since each of them has a batch there"
        ) from error


def _batches_on(device: str, loader: Iterable[LoadedBatch]) -> Iterator[Batch]:
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
