"""The page of `flame probe`: which LLM, at which layer, fits which tower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flame_core.alignment.results import Difference, Fit, Found
from flame_core.pages.charts import Bar, bar_chart
from flame_core.pages.comparison_charts import legend_marks
from flame_core.pages.layer_charts import LayerDot, layer_chart
from flame_core.pages.render import render
from flame_core.params.alignment import ProbeParams


@dataclass(frozen=True)
class Shown:
    """A tower on the page: its fits from the best LLM on, what tells them apart, and charts."""

    tower: str
    trained: bool  # a trained model, which may have seen the pairs
    fits: list[Fit]
    differences: list[Difference]
    bars: str
    recall: str
    neighbours: str


def probe_page(found: Found, chosen: ProbeParams, sources: Mapping[str, Any]) -> str:
    """The page as HTML; `sources` says of each LLM where it is from."""
    k = chosen.recall_at[-1]
    chance, near = k / found.gallery, chosen.neighbours / (found.pairs - 1)
    names = list(chosen.llms)
    shown = [
        Shown(
            tower,
            chosen.towers[tower].model is not None,
            fits := found.of_tower(tower),
            [each for each in found.differences if each.tower == tower],
            _bars(fits, chance, k),
            layer_chart(_curves(fits, names, "recall"), chance, f"{tower}: recall@{k} by layer"),
            layer_chart(_curves(fits, names, "neighbours"), near, f"{tower}: mutual nearest neighbours by layer"),
        )
        for tower in dict.fromkeys(fit.tower for fit in found.fits)
    ]
    return render(
        "alignment.html.j2",
        found=found,
        shown=shown,
        names=names,
        marks=legend_marks(len(names)),
        sources=sources,
        ks=chosen.recall_at,
        folds=chosen.folds,
        chance=chance,
        near=near,
        neighbours=chosen.neighbours,
        maps=SIDES[chosen.maps],
        confidence=chosen.confidence,
        reading=READINGS["facets" if chosen.reading is None else chosen.reading.read],
        prompt=None if chosen.reading is None else chosen.reading.prompt,
    )


SIDES = {"both": "behind either side", "texts": "behind the LLM", "pictures": "behind the tower"}
READINGS = {
    "facets": "as the params read raw captions: the mean of their facets",
    "last": "at the last token",
    "mean": "as the mean over the caption’s tokens",
}


def _bars(fits: list[Fit], chance: float, k: int) -> str:
    bars = [
        Bar(fit.llm, fit.recall[-1].value, fit.recall[-1].low, fit.recall[-1].high, chance, main=number == 0)
        for number, fit in enumerate(fits)
    ]
    return bar_chart(bars, f"{fits[0].tower}: recall@{k} by LLM")


def _curves(fits: list[Fit], names: list[str], what: str) -> dict[str, list[LayerDot]]:
    """The values of each LLM by layer, in the order of the params, so that a colour is the same in all charts."""
    found = {}
    for fit in sorted(fits, key=lambda fit: names.index(fit.llm)):
        own = [(each.layer, each.recall[-1] if what == "recall" else each.neighbours) for each in fit.layers]
        found[fit.llm] = [LayerDot(layer, fit.depth, value.value, value.low, value.high) for layer, value in own]
    return found
