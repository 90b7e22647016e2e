"""Training batches: samples by index, in an order and with draws that follow from the seed and the epoch alone.

Workers, restarts and machines do not change a batch: the order of an epoch is a permutation drawn from
(seed, epoch), and a sample's crop and its K texts are drawn from (seed, epoch, key).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from flame_core.data.shards import IndexRow, PictureReader
from flame_core.digest import text_sha256
from flame_core.params import TrainParams
from flame_core.text.store import TrainStore
from flame_core.vision.pictures import training_picture


@dataclass(frozen=True)
class Batch:
    """Pictures [B, 3, H, W], texts t [B, K, D] (both float32) and the samples' keys."""

    pictures: Tensor
    texts: Tensor
    keys: list[str]

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; DataLoader calls it."""
        return Batch(self.pictures.pin_memory(), self.texts.pin_memory(), self.keys)


class EpochOrder(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, sample number) from a step on; an epoch's last samples that fill no batch are left out."""

    def __init__(self, samples: int, batch_size: int, epochs: int, seed: int, first_step: int = 0) -> None:
        self.batch_size = min(batch_size, samples)
        self.steps_per_epoch = samples // self.batch_size
        self.total_steps = self.steps_per_epoch * epochs
        self._samples, self._seed, self._first = samples, seed, first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first_epoch = self._first // self.steps_per_epoch
        for epoch in range(first_epoch, self.total_steps // self.steps_per_epoch):
            order = self._permutation(epoch)
            for i in range(self.steps_per_epoch):
                if epoch * self.steps_per_epoch + i >= self._first:
                    part = order[i * self.batch_size : (i + 1) * self.batch_size]
                    yield [(epoch, number) for number in part]

    def __len__(self) -> int:
        return self.total_steps - self._first

    def _permutation(self, epoch: int) -> list[int]:
        order = list(range(self._samples))
        random.Random(f"order {self._seed} {epoch}").shuffle(order)
        return order


class TrainingSamples(Dataset[tuple[Tensor, np.ndarray, str]]):
    """A sample by (epoch, number): its augmented picture, K drawn texts [K, D] and its key."""

    def __init__(
        self, rows: Sequence[IndexRow], shards: Path, store: TrainStore, facets: Sequence[int], params: TrainParams
    ) -> None:
        self._rows, self._store, self._facets, self._params = list(rows), store, list(facets), params
        self._pictures = PictureReader(shards)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, np.ndarray, str]:
        epoch, number = place
        row, params = self._rows[number], self._params
        draw = random.Random(text_sha256(f"sample {params.seed} {epoch} {row.key}"))
        picture = training_picture(self._pictures.jpeg(row), params.model.image_size, params.augmentation, draw)
        count = min(params.objective.texts_per_image, len(self._facets))
        return picture, self._store.read(row.shard, row.row, draw.sample(self._facets, count)), row.key


def collate(samples: Sequence[tuple[Tensor, np.ndarray, str]]) -> Batch:
    """Samples to a batch."""
    pictures, texts, keys = zip(*samples, strict=True)
    return Batch(torch.stack(pictures), torch.from_numpy(np.stack(texts)), list(keys))


def create_loader(samples: TrainingSamples, order: EpochOrder, workers: int, pin_memory: bool) -> Iterable[Batch]:
    """Batches in the order given, decoded by `workers` processes (0: in this one)."""
    return DataLoader(
        samples,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # it draws seeds for its workers, and must leave the training's alone
        multiprocessing_context="forkserver" if workers else None,
    )
