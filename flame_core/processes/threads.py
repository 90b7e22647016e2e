"""Work of threads, in the order of its items: results are the same as without threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


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


def mapped(function: Callable[[A], B], items: Iterable[A], threads: int) -> list[B]:
    """`function` of every item, by so many threads; 0: by this one.

    Of several errors, that of the first item is raised.
    """
    if not threads:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        try:
            return list(pool.map(function, items))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
