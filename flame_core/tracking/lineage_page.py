"""The lineage of a model as a page: the chain as a graph, and a card per link."""

from __future__ import annotations

from flame_core.pages.render import render
from flame_core.tracking.chain import BROKEN, UNCHECKED, VERIFIED
from flame_core.tracking.lineage import Lineage

MARKS = {VERIFIED: "✓", BROKEN: "✗", UNCHECKED: "–"}


def lineage_page(lineage: Lineage) -> str:
    """A self-contained HTML page."""
    return render("lineage.html.j2", lineage=lineage, marks=MARKS, broken=BROKEN)
