"""Whether generated captions tell pictures apart: the mean cosine between captions of different pictures.

Trained on generated captions only, a contrastive loss fails where captions of different pictures say the same
(TL;DR, arXiv 2305.20087). So original and generated captions are kept side by side, as rows of their own; this measures
how much less the generated ones differ. Stored vectors are read as they are, before any centring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from flame_core.selections.picking import hash_numbers
from flame_core.text.store import EMBEDDINGS, unit
from flame_core.text.tensor_file import TensorFile

ENOUGH = 2048  # samples, in whole shards


def shards_to_read(sizes: Mapping[str, int]) -> list[str]:
    """Shards in the order of a hash of their names, until they have enough samples."""
    names = sorted(sizes)
    order = [names[place] for place in np.argsort(hash_numbers(names, 0), kind="stable").tolist()]
    found, samples = [], 0
    for shard in order:
        if samples >= ENOUGH:
            break
        found.append(shard)
        samples += sizes[shard]
    return sorted(found)


def caption_cosines(files: Sequence[Path], names: Sequence[str]) -> dict[str, float]:
    """{kind: mean cosine between captions of different samples, over its facets}.

    Args:
        files: of stored training vectors, [rows, facets, hidden].
        names: of the facets, such as raw/1.
    """
    sums, squares, samples = 0.0, 0.0, 0
    for path in files:
        t = unit(np.asarray(TensorFile(path).read(EMBEDDINGS, slice(None)), dtype=np.float64))
        sums, squares, samples = sums + t.sum(axis=0), squares + (t**2).sum(axis=(0, 2)), samples + len(t)
    if samples < 2:
        return {}
    between = ((np.asarray(sums) ** 2).sum(axis=1) - squares) / (samples * (samples - 1))  # [facets]
    kinds = [name.partition("/")[0] for name in names]
    return {
        kind: float(np.mean([b for b, own in zip(between, kinds, strict=True) if own == kind]))
        for kind in dict.fromkeys(kinds)
    }
