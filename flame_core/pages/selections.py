"""The page of `flame select`: selections beside all samples, their words, and clusters by pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flame_core.inline_pictures import thumbnail
from flame_core.pages.charts import line_chart
from flame_core.pages.render import render
from flame_core.selections.word_shares import WordShares

_CLUSTERS, _PICTURES = 48, 6  # that are shown


@dataclass(frozen=True)
class Row:
    """A selection in the table: how it was made, and what it holds.

    Attributes:
        gini: of the samples per cluster.
        perplexity: of the codes' usage.
        clusters: with at least one sample.
        words: share of the words, or concepts, that are left.
    """

    name: str
    mode: str
    samples: int
    share: float
    gini: float
    perplexity: float
    clusters: int
    words: float


@dataclass(frozen=True)
class Groups:
    """Clusters of all samples: the cluster and cosine of each sample [N], sizes [C], and counts [C] by selection."""

    groups: np.ndarray
    cosines: np.ndarray
    sizes: np.ndarray
    counts: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Shown:
    """A cluster on the page: its pictures nearest to the centroid, and the words of its codes."""

    number: int
    samples: int
    counts: dict[str, int]
    pictures: list[tuple[str, str, bool]]
    codes: list[str]


def selections_page(
    rows: Sequence[Row],
    found: Groups,
    words: WordShares,
    what: str,
    captions: Mapping[str, float],
    jpeg: Callable[[int], bytes],
    caption: Callable[[Sequence[int]], Mapping[int, str]],
    codes: Callable[[Sequence[int]], list[str]],
    first: Callable[[int], bool],
) -> str:
    """The page as HTML.

    Args:
        rows: all samples first, then the selections.
        found: the clusters.
        words: before and after.
        what: `words` or `concepts`, which they are.
        captions: mean cosine between captions of different pictures, by kind.
        jpeg: returns the picture of a sample.
        caption: returns captions of samples.
        codes: names the codes that some samples have most, compared with all.
        first: whether the first selection holds a sample.
    """
    by_size = np.argsort(-found.sizes, kind="stable")
    nearest = nearest_samples(found, _CLUSTERS, _PICTURES)
    texts = caption([sample for near in nearest.values() for sample in near])
    shown = []
    for number, near in nearest.items():
        pictures = [(thumbnail(jpeg(sample)), texts.get(sample, ""), first(sample)) for sample in near]
        counts = {name: int(each[number]) for name, each in found.counts.items()}
        shown.append(Shown(number, int(found.sizes[number]), counts, pictures, codes(near)))
    sizes = found.sizes[by_size]
    return render(
        "selections.html.j2",
        rows=rows,
        clusters=shown,
        count=len(found.sizes),
        empty=[int(number) for number in np.flatnonzero(found.sizes == 0)],
        samples=len(found.groups),
        cosine=float(found.cosines.mean(dtype=np.float64)),
        words=words,
        what=what,
        captions=captions,
        names=list(found.counts),
        chart=line_chart(range(len(sizes)), sizes.tolist(), "Samples per cluster", "clusters by size"),
        after=[
            (
                name,
                line_chart(
                    range(len(each)), each[by_size].tolist(), f"{name}: samples per cluster", "the same clusters"
                ),
            )
            for name, each in found.counts.items()
        ],
    )


def nearest_samples(found: Groups, clusters: int, samples: int) -> dict[int, list[int]]:
    """{cluster: the samples nearest to its centroid} of some clusters, from the largest to the smallest."""
    by_size = np.argsort(-found.sizes, kind="stable")
    filled = by_size[: int((found.sizes > 0).sum())]
    places = sorted({len(filled) * i // clusters for i in range(clusters)} | {len(filled) - 1})
    nearest = {}
    for number in (int(filled[place]) for place in places):
        own = np.flatnonzero(found.groups == number)
        nearest[number] = own[np.argsort(-found.cosines[own], kind="stable")[:samples]].tolist()
    return nearest
