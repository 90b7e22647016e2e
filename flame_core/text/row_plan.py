"""Which texts share a row of the LLM: planned from their lengths only, so a file's bytes follow from its texts.

sdpa (CPU): rows of at most `budget` tokens, in order of decreasing length, so that equal shapes are together.
flex (GPU): rows are filled first-fit in that order; their lengths are rounded up to a sixteenth of the budget, so that
            at most 16 row lengths occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Backend = Literal["sdpa", "flex"]
BLOCK = 128  # tokens of a FlexAttention block
_STEPS = 16  # row lengths are multiples of this fraction of the budget


@dataclass(frozen=True)
class Row:
    """Numbers of the sequences in a row, in order, and the row's length in tokens, padding included."""

    members: tuple[int, ...]
    length: int


def plan_rows(lengths: Sequence[int], budget: int, backend: Backend) -> list[Row]:
    """The rows of sequences of these lengths: at most `budget` tokens each, unless a single sequence is longer."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    rows: list[list[int]] = []
    room: list[int] = []
    open_from = 0  # rows before it have no room for the shortest sequence
    shortest = min(lengths, default=0)
    for i in order:
        if backend == "flex":
            while open_from < len(rows) and room[open_from] < shortest:
                open_from += 1
            candidates = range(open_from, len(rows))
        else:
            candidates = range(len(rows))[-1:]
        fits = next((row for row in candidates if room[row] >= lengths[i]), None)
        if fits is None:
            rows.append([i])
            room.append(budget - lengths[i])
        else:
            rows[fits].append(i)
            room[fits] -= lengths[i]
    used = [budget - left for left in room]
    ends = [row_length(tokens, budget) for tokens in used] if backend == "flex" else used
    return [Row(tuple(members), length) for members, length in zip(rows, ends, strict=True)]


def row_length(tokens: int, budget: int) -> int:
    """The length of a FlexAttention row for `tokens` tokens; few lengths occur, because each must be compiled."""
    step = max(BLOCK, budget // _STEPS // BLOCK * BLOCK)
    return -(-tokens // step) * step
