"""The page of `flame caption-lm`: held-out pictures with what the LLM writes, beside their reference captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flame_core.inline_pictures import thumbnail
from flame_core.pages.charts import line_chart
from flame_core.pages.render import render

SHOWN = 48  # pictures


def captioner_page(
    about: Mapping[str, str],
    scores: Mapping[str, float],
    written: Sequence[Mapping[str, Any]],
    losses: Sequence[float],
    jpeg: Callable[[str], bytes],
) -> str:
    """The page as HTML.

    Args:
        about: what was trained, for people.
        scores: of the held-out pictures.
        written: `key`, `written`, `references` and `cider` of each of them.
        losses: of each step.
        jpeg: the picture of a key.
    """
    shown = [{**each, "picture": thumbnail(jpeg(each["key"]))} for each in written[:SHOWN]]
    chart = line_chart(range(len(losses)), list(losses), "Loss by step, in nats per token", "step")
    return render("captioner.html.j2", about=about, scores=scores, shown=shown, pictures=len(written), chart=chart)
