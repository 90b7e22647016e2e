"""The page of `flame adapt-llm`: how well captions of each language find their pictures, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flame_core.language_names import language_name
from flame_core.pages.charts import line_chart
from flame_core.pages.render import render


def adapter_page(
    before: Mapping[str, Mapping[str, float]],
    after: Mapping[str, Mapping[str, float]],
    losses: Sequence[float],
    figures: Mapping[str, str],
) -> str:
    """The page as HTML.

    Args:
        before: {language: {recall@k: value}} of the LLM as it came.
        after: the same with its adapters.
        losses: of the batches, by step.
        figures: results by name.
    """
    names = list(next(iter(after.values()), {}))
    rows = [
        (language_name(language), language, [(before[language][name], own[name]) for name in names])
        for language, own in after.items()
    ]
    chart = line_chart(range(1, len(losses) + 1), list(losses), "Loss of each batch", "step")
    return render("llm_adapter.html.j2", names=names, rows=rows, figures=figures, chart=chart)
