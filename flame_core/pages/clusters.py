"""The page of `flame cluster`: sizes of the clusters, and captions nearest to their centroids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flame_core.captions.table import captions_at
from flame_core.pages.charts import line_chart
from flame_core.pages.render import render
from flame_core.params import CaptionKind

_CLUSTERS, _CAPTIONS = 60, 5  # that are shown


@dataclass(frozen=True)
class Labelled:
    """By shard, labels [rows] and similarities [rows] of samples to their centroid; counts [K] of all by label."""

    labels: Mapping[str, np.ndarray]
    scores: Mapping[str, np.ndarray]
    counts: np.ndarray

    @property
    def mean_score(self) -> float:
        """Mean similarity of a sample to its centroid."""
        return sum(float(own.sum(dtype=np.float64)) for own in self.scores.values()) / int(self.counts.sum())


@dataclass(frozen=True)
class Shown:
    """A cluster on the page, with the captions nearest to its centroid, each with the similarity."""

    number: int
    samples: int
    captions: list[tuple[str, float]]


def cluster_page(found: Labelled, captions: Path, kind: CaptionKind, language: str) -> str:
    """The page as HTML.

    Args:
        found: the labels.
        captions: folder of the captions.
        kind: of the captions that are shown.
        language: the same.
    """
    by_size = np.argsort(-found.counts, kind="stable")
    sizes = found.counts[by_size]
    filled = by_size[: int((sizes > 0).sum())]
    shown = sorted({len(filled) * i // _CLUSTERS for i in range(_CLUSTERS)} | {len(filled) - 1})
    chosen = [int(filled[place]) for place in shown]
    nearest = _nearest(found, chosen)
    texts = captions_at({place for places in nearest.values() for place, _ in places}, captions, kind, language)
    return render(
        "clusters.html.j2",
        clusters=[
            Shown(
                number, int(found.counts[number]), [(texts.get(place, ""), score) for place, score in nearest[number]]
            )
            for number in chosen
        ],
        count=len(by_size),
        samples=int(found.counts.sum()),
        empty=int((sizes == 0).sum()),
        largest=int(sizes[0]),
        cosine=found.mean_score,
        kind=kind,
        chart=line_chart(range(len(sizes)), sizes.tolist(), "Samples per cluster", "clusters by size"),
    )


def _nearest(found: Labelled, chosen: Sequence[int]) -> dict[int, list[tuple[tuple[str, int], float]]]:
    """{cluster: its samples nearest to the centroid, as ((shard, row), similarity)}."""
    best: dict[int, list[tuple[tuple[str, int], float]]] = {number: [] for number in chosen}
    for shard in sorted(found.labels):
        labels, scores = found.labels[shard], found.scores[shard]
        order = np.lexsort((np.arange(len(labels)), -scores, labels))
        starts = np.searchsorted(labels[order], chosen)
        ends = np.searchsorted(labels[order], chosen, side="right")
        for number, start, end in zip(chosen, starts, ends, strict=True):
            rows = order[start : min(end, start + _CAPTIONS)]
            merged = [*best[number], *(((shard, int(row)), float(scores[row])) for row in rows)]
            best[number] = sorted(merged, key=lambda each: -each[1])[:_CAPTIONS]
    return best
