"""The pairs that the probe is fitted and measured on: training pictures with a caption each, drawn by a seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flame_core.captions.table import captions_file, first_captions
from flame_core.data.shards import Index, IndexRow
from flame_core.errors import InputError


@dataclass(frozen=True)
class Pair:
    """A row of the training index, and its first raw caption in the language of training."""

    row: IndexRow
    text: str


def draw_pairs(index: Index, captions: Path, language: str, count: int, seed: int) -> list[Pair]:
    """So many pairs with different captions, in the order of a permutation; of fewer pairs, the first of the same.

    Equal captions (case and space aside) would count as mistakes for one another, so only the first of them is drawn.

    Raises:
        InputError: there are fewer.
    """
    order = np.random.default_rng(seed).permutation(len(index))
    found: list[Pair] = []
    seen: set[str] = set()
    texts: dict[str, dict[int, str]] = {}
    for number in order.tolist():
        if len(found) == count:
            break
        row = index[number]
        if row.shard not in texts:
            texts[row.shard] = first_captions(captions_file(captions, row.shard), "raw", language)
        text = texts[row.shard].get(row.row)
        if text is None or (plain := " ".join(text.casefold().split())) in seen:
            continue
        seen.add(plain)
        found.append(Pair(row, text))
    if len(found) < count:
        raise InputError(
            f"probe.pairs is {count:,}, and the {len(index):,} training samples have {len(found):,} different captions "
            f"in {language!r}: set probe.pairs to at most that"
        )
    return found
