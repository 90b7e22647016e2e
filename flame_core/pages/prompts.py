"""The page of `flame prompts`: held-out captions beside what the LLM writes from their prompts, and the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flame_core.pages.charts import line_chart, standalone
from flame_core.pages.render import render

_SHOWN = 60  # captions of either list


@dataclass(frozen=True)
class Rewritten:
    """A caption, what the LLM wrote from its prompts, their overlap, and the tokens nearest to these."""

    text: str
    written: str
    overlap: float
    nearest: list[str]


def prompts_page(
    tested: Sequence[Rewritten], learned: Sequence[Rewritten], losses: Sequence[float], figures: Mapping[str, str]
) -> str:
    """The page as HTML.

    Args:
        tested: held-out captions.
        learned: some that were learned.
        losses: L_lm by step.
        figures: results by name.
    """
    return render(
        "prompts.html.j2",
        lists=[("Held-out captions", tested[:_SHOWN]), ("Captions that were learned", learned[:_SHOWN])],
        figures=figures,
        chart=loss_chart(losses),
    )


def loss_chart(losses: Sequence[float]) -> str:
    """L_lm by step, as SVG."""
    return line_chart(range(1, len(losses) + 1), list(losses), "Loss per token of the captions, in nats", "step")


def loss_picture(losses: Sequence[float]) -> bytes:
    """The same as a file."""
    return standalone(loss_chart(losses))
