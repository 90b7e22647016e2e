"""Batches that a thread prepares are the loader's."""

from __future__ import annotations

import resource

import pytest
import torch

from flame_core.errors import ResourceError
from flame_core.processes.threads import prefetched
from flame_core.training.loader import EpochOrder, create_loader
from flame_core.training.prefetch import batches_on
from tests.training.world import recipe, samples_of, write_world


def test_samples_that_shared_memory_has_no_room_for_are_said_in_words(tmp_path):
    write_world(tmp_path)
    loader = create_loader(samples_of(tmp_path, recipe()), EpochOrder(24, 8, 1, 0), 1, pin_memory=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # Python ignores the signal
    try:
        with pytest.raises(ResourceError, match=r"captions do not fit into shared memory .*FLAME_LOADER_WORKERS to 0"):
            list(batches_on("cpu", loader))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_batches_are_the_loader_s(tmp_path):
    write_world(tmp_path)
    samples = samples_of(tmp_path, recipe())
    order = EpochOrder(24, 8, 1, 0)
    expected = [batch.on("cpu") for batch in create_loader(samples, order, 0, pin_memory=False)]
    found = list(batches_on("cpu", create_loader(samples, order, 0, pin_memory=False)))
    for one, other in zip(found, expected, strict=True):
        assert one.keys == other.keys and torch.equal(one.pictures, other.pictures)
        assert torch.equal(one.texts, other.texts)
    ahead = prefetched(create_loader(samples, order, 0, pin_memory=False), lambda batch: batch.moved("cpu"))
    for one, other in zip(ahead, expected, strict=True):
        assert {tensor.device.type for tensor in one.tensors()} == {"cpu"}
        assert torch.equal(one.ready().texts, other.texts)
