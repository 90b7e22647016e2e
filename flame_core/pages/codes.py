"""The page of `flame codes`: how often codes are used, those that no patch has, and patches of some codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flame_core.inline_pictures import centre_square, data_uri
from flame_core.pages.charts import line_chart
from flame_core.pages.render import render

PICTURES = 64  # whose patches are shown
_CODES, _PATCHES, _SIDE = 48, 6, 40  # codes, patches of each, and a patch's side in pixels


@dataclass(frozen=True)
class CodesFound:
    """What the page tells.

    Attributes:
        counts: patches per code, [K].
        words: of the codes, or none.
        pictures: how many were coded.
        perplexity: of the counts.
        cosine: mean of patches with their codes.
        tower: for people.
        codebook: kmeans, vq or words.
    """

    counts: np.ndarray
    words: Sequence[str]
    pictures: int
    perplexity: float
    cosine: float
    tower: str
    codebook: str = "kmeans"

    def name(self, code: int) -> str:
        """`code 17`, or its word."""
        return self.words[code] if self.words else f"code {code}"

    @property
    def dead(self) -> list[str]:
        """Names of codes that no patch has."""
        return [self.name(int(code)) for code in np.flatnonzero(self.counts == 0)]


@dataclass(frozen=True)
class Shown:
    """A code on the page, with some of its patches as data URIs."""

    name: str
    patches: int
    views: list[str]


def codes_page(found: CodesFound, codes: np.ndarray, jpeg: Callable[[int], bytes]) -> str:
    """The page as HTML.

    Args:
        found: the figures.
        codes: of some pictures, [n, L].
        jpeg: returns one of these by its number.
    """
    by_use = np.argsort(-found.counts, kind="stable")
    used = by_use[: int((found.counts > 0).sum())]
    places = sorted({len(used) * i // _CODES for i in range(_CODES)} | {len(used) - 1})
    chosen = [int(used[place]) for place in places]
    views = _views(chosen, codes, jpeg)
    sizes = found.counts[by_use]
    return render(
        "codes.html.j2",
        found=found,
        codes=[Shown(found.name(code), int(found.counts[code]), views[code]) for code in chosen],
        count=len(found.counts),
        patches=int(found.counts.sum()),
        chart=line_chart(range(len(sizes)), sizes.tolist(), "Patches per code", "codes by use"),
    )


def _views(chosen: Sequence[int], codes: np.ndarray, jpeg: Callable[[int], bytes]) -> dict[int, list[str]]:
    """{code: some of its patches}; none if patches lie on no square grid."""
    side = math.isqrt(codes.shape[1])
    views: dict[int, list[str]] = {code: [] for code in chosen}
    if side * side != codes.shape[1]:
        return views
    for number, picture in enumerate(codes):
        square = None
        for place, code in enumerate(picture.tolist()):
            if code in views and len(views[code]) < _PATCHES:
                square = square or centre_square(jpeg(number), side * _SIDE)
                y, x = divmod(place, side)
                view = square.crop((x * _SIDE, y * _SIDE, (x + 1) * _SIDE, (y + 1) * _SIDE))
                views[code].append(data_uri(view))
    return views
