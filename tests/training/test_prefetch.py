"""The next item is prepared while one is in use; order, errors and the end are those of the items."""

from __future__ import annotations

import threading

import pytest
import torch

from flame_core.training.loader import EpochOrder, create_loader
from flame_core.training.prefetch import batches_on, prefetched
from tests.training.world import recipe, samples_of, write_world


def test_the_next_item_is_prepared_while_one_is_in_use():
    begun = [threading.Event() for _ in range(3)]
    main = threading.get_ident()

    def prepare(item: int) -> int:
        assert threading.get_ident() != main
        begun[item].set()
        return 10 * item

    items = prefetched(range(3), prepare)
    for number, found in enumerate(items):
        assert found == 10 * number
        if number < 2:
            assert begun[number + 1].wait(10)
        if number == 0:
            assert not begun[2].wait(0.05)  # one ahead, not more


def test_an_error_comes_at_its_place():
    items = prefetched([4, 2, 0, 1], lambda item: 8 // item)
    assert [next(items), next(items)] == [2, 4]
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_whoever_stops_early_leaves_no_thread():
    before = threading.active_count()
    items = prefetched(iter(range(1000)), str)
    assert next(items) == "0"
    items.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert threading.active_count() == before
    assert list(prefetched([], str)) == []


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
