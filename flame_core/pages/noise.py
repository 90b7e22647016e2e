"""The page of `flame noise`: how many samples a share moves, and what the captions of some become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flame_core.pages.charts import Bar, bar_chart, standalone
from flame_core.pages.render import render

_SHOWN = 24  # samples with their old and new caption
_NAMED = 5  # captions in a check
_TITLE = "Samples with another caption, by share"


@dataclass(frozen=True)
class Share:
    """What a share of noise does.

    Attributes:
        share: rho.
        moved: samples that get the texts of another.
        same: of these, those whose new raw caption is the same as their own.
        equal_texts: some of these captions.
    """

    share: float
    moved: int
    same: int
    equal_texts: list[str]

    @classmethod
    def of(cls, share: float, rows: np.ndarray, texts: Sequence[str]) -> Share:
        """Count it; `rows` [N] tells whose texts each of the N samples gets."""
        changed = [row for row, source in enumerate(rows.tolist()) if source != row]
        same = [row for row in changed if texts[row] == texts[int(rows[row])]]
        return cls(share, len(changed), len(same), sorted({texts[row] for row in same})[:_NAMED])


def noise_page(
    seed: int, samples: int, shares: Sequence[Share], texts: Sequence[str], rows: np.ndarray, order: np.ndarray
) -> str:
    """The page as HTML.

    Args:
        seed: of the order.
        samples: N.
        shares: that are shown.
        texts: the raw caption of each sample.
        rows: whose texts each sample gets at the largest share [N].
        order: each sample's place [N].
    """
    first = np.argsort(order)[:_SHOWN].tolist()
    sources = rows.tolist()
    return render(
        "noise.html.j2",
        seed=seed,
        samples=samples,
        shares=shares,
        largest=max(each.share for each in shares),
        examples=[(int(order[row]), texts[row], texts[sources[row]]) for row in first if sources[row] != row],
        chart=bar_chart(_bars(shares, samples), _TITLE),
    )


def shares_chart(shares: Sequence[Share], samples: int) -> bytes:
    """The chart of the page as a file."""
    return standalone(bar_chart(_bars(shares, samples), _TITLE))


def _bars(shares: Sequence[Share], samples: int) -> list[Bar]:
    """The share of samples whose caption really is another; the ceiling is the share that was asked for."""
    told = [(each, (each.moved - each.same) / samples) for each in shares]
    return [Bar(f"noise {each.share:g}", value, value, value, ceiling=each.share) for each, value in told]
