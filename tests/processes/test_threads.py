"""The next item is prepared while one is in use; order, errors and the end are those of the items."""

from __future__ import annotations

import threading
import time

import pytest

from flame_core.processes.threads import mapped, prefetched


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


@pytest.mark.parametrize("threads", [0, 1, 5])
def test_results_are_in_the_order_of_the_items(threads):
    def late(item: int) -> tuple[int, bool]:
        time.sleep(0.001 * (item % 3))
        return item * item, threading.current_thread() is threading.main_thread()

    found = mapped(late, range(40), threads)
    assert [square for square, _ in found] == [item * item for item in range(40)]
    assert {in_main for _, in_main in found} == {threads == 0}


@pytest.mark.parametrize("threads", [0, 3])
def test_the_first_item_s_error_is_raised(threads):
    def fail(item: int) -> None:
        time.sleep(0.02 if item == 2 else 0)  # a later one fails sooner
        if item >= 2:
            raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 2"):
        mapped(fail, range(50), threads)
