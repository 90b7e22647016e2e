"""Cases are timed in turns."""

from __future__ import annotations

import pytest

from benchmarks.measure import in_turns


def interrupted_after(calls: int):
    """A case that is interrupted by Ctrl-C after so many calls."""
    left = iter(range(calls))

    def run() -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    return run


def test_an_interrupt_keeps_the_turns_that_are_whole():
    measured = in_turns({"a": lambda: None, "b": interrupted_after(4)}, turns=9, warm=1)
    assert {case: len(own) for case, own in measured.seconds.items()} == {"a": 3, "b": 3}


def test_an_interrupt_before_the_first_whole_turn_ends_the_benchmark():
    with pytest.raises(KeyboardInterrupt):
        in_turns({"a": lambda: None, "b": interrupted_after(1)}, turns=9, warm=1)
