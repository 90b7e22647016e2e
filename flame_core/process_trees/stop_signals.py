"""Signals that ask a command to stop: what is done about them in a context, such as an exception in its main thread."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop(BaseException):
    """A stop signal arrived; the argument is its number."""


@contextmanager
def stop_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise `Stop` within the context; an ignored signal (nohup) stays ignored."""

    def stop(number: int) -> None:
        raise Stop(number)

    with on_stop_signals(stop):
        yield


@contextmanager
def on_stop_signals(act: Callable[[int], None], *more: signal.Signals) -> Iterator[None]:
    """Call `act` with the number of each of these signals, and of `more`, that arrives within the context.

    An ignored signal stays ignored. The handlers of before are restored, whoever has set others meanwhile.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        act(number)

    old = {
        number: handler for number in (*_SIGNALS, *more) if (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }
    for number in old:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
