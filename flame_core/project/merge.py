"""Merges two changes of one text, line by line, as `diff3` does; nothing is guessed where both changed the same lines.

Lines that both sides add at the same place are both kept, ours first: stages that two people append to a `dvc.yaml`
are no conflict. The caller checks that the result can still be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher


def merge(base: str, ours: str, theirs: str) -> str | None:
    """`ours` with the changes from `base` to `theirs`; None if both changed the same lines, or lines that touch."""
    old, left, right = (_lines(text) for text in (base, ours, theirs))
    merged: list[str] = []
    at = [0, 0, 0]
    for start, start_left, start_right, size in (*_common(old, left, right), (len(old), len(left), len(right), 0)):
        gap, gap_left, gap_right = old[at[0] : start], left[at[1] : start_left], right[at[2] : start_right]
        if gap_left in (gap, gap_right):
            merged += gap_right
        elif gap_right == gap:
            merged += gap_left
        elif not gap:
            merged += gap_left + gap_right
        else:
            return None
        merged += old[start : start + size]
        at = [start + size, start_left + size, start_right + size]
    return "".join(merged)


def _common(old: list[str], left: list[str], right: list[str]) -> Iterator[tuple[int, int, int, int]]:
    """(start in `old`, in `left`, in `right`, number of lines) of the lines that no side changed, in order."""
    of_right = _matches(old, right)
    for start, start_left, size in _matches(old, left):
        for other, start_right, other_size in of_right:
            first, last = max(start, other), min(start + size, other + other_size)
            if first < last:
                yield first, start_left + first - start, start_right + first - other, last - first


def _matches(old: list[str], new: list[str]) -> list[tuple[int, int, int]]:
    found = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    return [(block.a, block.b, block.size) for block in found if block.size]


def _lines(text: str) -> list[str]:
    """Lines with their ends; the last one gets an end too."""
    lines = text.splitlines(keepends=True)
    return [*lines[:-1], lines[-1] if lines[-1].endswith("\n") else f"{lines[-1]}\n"] if lines else []
