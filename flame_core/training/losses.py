"""The losses of a training as its check and its pages tell them; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def main_losses(steps: Sequence[Mapping[str, float]], objective: str | None) -> list[float]:
    """The loss of the recipe's objective, without its terms, in each step in which it counts.

    Args:
        steps: rows of `metrics.jsonl`.
        objective: its name; None if the training has no recipe, and so no terms.
    """
    name = f"loss/{objective}"
    shares = [[value for key, value in step.items() if key == name or key.startswith(f"{name}/")] for step in steps]
    if any(shares):
        return [sum(own) for own in shares if own]
    return [step["loss"] for step in steps]


def first_and_last(losses: Sequence[float]) -> tuple[float, float]:
    """Mean loss over the first and the last twentieth of the steps."""
    window = max(1, len(losses) // 20)
    return sum(losses[:window]) / window, sum(losses[-window:]) / window
