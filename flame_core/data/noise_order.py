"""Which samples lose their own texts to others: noise of a known share, from one seeded order of all samples.

The order is a permutation of the samples, drawn from a seed and their keys. Of N samples and a share rho, the first
m = floor(rho N) in the order pass their texts round: the text of each goes to the one before it, and that of the first
to the last. So exactly m samples are moved (none if m is 1, because it would keep its own), none of them keeps its own
texts, and the samples of a smaller share are among those of a larger one.

`flame noise` stores the order as a sidecar; a recipe with `noise: 0.1` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flame_core.digest import text_sha256
from flame_core.errors import InputError

NOISE = "noise"  # the sidecar's name, in a recipe and in data/sidecars/


def draw_order(keys: Sequence[str], seed: int) -> np.ndarray:
    """The place of each sample in the order, int64 [N]."""
    drawn = [text_sha256(f"noise {seed} {key}") for key in keys]
    order = np.empty(len(keys), np.int64)
    order[np.array(sorted(range(len(keys)), key=drawn.__getitem__), dtype=np.int64)] = np.arange(len(keys))
    return order


def moved(count: int, share: float) -> int:
    """How many of so many samples lose their own texts: floor(share * count), and 0 in place of 1."""
    m = int(share * count + 1e-9)  # 0.3 * 10 is 2.9999999999999996 for some shares
    return m if m > 1 else 0


def text_rows(order: np.ndarray, share: float) -> np.ndarray:
    """For each sample, the number of the sample whose texts it gets, int64 [N].

    Args:
        order: distinct places of the samples that are trained on; those of a selection need not be consecutive.
        share: rho, of these samples.

    Raises:
        InputError: a place stands twice, or the share is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise InputError(f"noise: the share of samples is {share:g}, and it must be from 0 to 1")
    by_place = np.argsort(order, kind="stable")
    if len(order) > 1 and not (np.diff(order[by_place]) > 0).all():
        raise InputError("noise: two samples have the same place in the order; run `flame noise` again")
    rows = np.arange(len(order))
    ring = by_place[: moved(len(order), share)]
    rows[ring] = np.roll(ring, -1)
    return rows
