"""How to go on after a failed check, and causes that checks of several stages have."""

from __future__ import annotations

from typing import NamedTuple


class Remedy(NamedTuple):
    """How to go on after a failed check.

    Attributes:
        causes: each with what to do, the most likely first.
        param: the key that holds the threshold; None if it is none.
    """

    causes: tuple[str, ...]
    param: str | None = None


DAMAGED = "an out was changed or damaged after it was made: `dvc checkout` restores it"
OTHER_SHARDS = "captions were made for other shards: `flame caption` makes them anew"
OWN_FAULT = "a fault of this program: please report it with the examples"
