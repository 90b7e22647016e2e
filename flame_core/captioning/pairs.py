"""Pictures with the captions that a captioner learns, and the batches of its training.

A batch depends only on the seed and the step: the order of an epoch, a picture's crop and the caption that is drawn
for it follow from (seed, epoch, key).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flame_core.captions.table import captions_file, read_captions
from flame_core.data.shards import IndexRow, PictureReader, Split, read_index
from flame_core.digest import text_sha256
from flame_core.errors import InputError
from flame_core.params import AugmentationParams
from flame_core.vision.decoding import open_with
from flame_core.vision.views import normalised, training_view


@dataclass(frozen=True)
class Pair:
    """A picture of a shard and its captions."""

    row: IndexRow
    captions: tuple[str, ...]


def read_pairs(
    shards: Path, captions: Path, split: Split, kinds: Sequence[str], language: str, most: int | None = None
) -> list[Pair]:
    """At most so many pairs of a split, the first ones; a picture without a caption of these kinds has its raw ones.

    Raises:
        InputError: a picture has no caption in that language; names it.
    """
    texts: dict[str, dict[str, list[str]]] = {}
    index = read_index(shards, split)[:most]
    for shard in sorted({row.shard for row in index}):
        for caption in read_captions(captions_file(captions, shard)):
            if caption.language == language:
                texts.setdefault(caption.key, {}).setdefault(caption.kind, []).append(caption.text)
    pairs = []
    for row in index:
        own = texts.get(row.key, {})
        chosen = [text for kind in kinds for text in own.get(kind, ())] or own.get("raw", [])
        if not chosen:
            raise InputError(f"{captions}: {row.key} has no caption in {language!r}: choose other caption_lm.kinds")
        pairs.append(Pair(row, tuple(chosen)))
    return pairs


class Batches:
    """The batch of each step: normalised pictures [B, 3, H, W] and a caption of each."""

    def __init__(
        self, pairs: Sequence[Pair], shards: Path, batch_size: int, size: int, changes: AugmentationParams, seed: int
    ) -> None:
        self._pairs, self._size, self._changes, self._seed = pairs, size, changes, seed
        self.batch_size = min(batch_size, len(pairs))
        self.steps_per_epoch = len(pairs) // self.batch_size
        self._pictures = PictureReader(shards)

    def __call__(self, step: int) -> tuple[Tensor, list[str]]:
        epoch, place = divmod(step, self.steps_per_epoch)
        order = _order(len(self._pairs), self._seed, epoch)
        views, texts = [], []
        for number in order[place * self.batch_size : (place + 1) * self.batch_size]:
            pair = self._pairs[int(number)]
            draw = random.Random(text_sha256(f"caption {self._seed} {epoch} {pair.row.key}"))
            picture = open_with("pil", self._pictures.jpeg(pair.row))
            views.append(training_view(picture, self._size, self._changes, draw).pixels)
            texts.append(draw.choice(pair.captions))
        return normalised(torch.stack(views)), texts


@lru_cache(maxsize=1)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of `count` pairs in an epoch, [count]; that of the last one is kept."""
    return np.random.default_rng([seed, epoch]).permutation(count)
