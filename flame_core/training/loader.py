"""Training batches: samples by index, in an order and with draws that follow from the seed and the epoch alone.

Workers, restarts and machines do not change a batch: the order of an epoch is a permutation drawn from
(seed, epoch), and a sample's crop and its K texts are drawn from (seed, epoch, key).
"""

from __future__ import annotations

import random
import resource
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from flame_core.data.shards import Index, PictureReader
from flame_core.digest import text_sha256
from flame_core.errors import ResourceError
from flame_core.params import TrainParams
from flame_core.ranks import ALONE, Ranks
from flame_core.text.jobs import facet_number
from flame_core.text.store import Drawn, TrainStore
from flame_core.text.transformer import CaptionSamples
from flame_core.training.shared_index import SharedIndex
from flame_core.vision.views import normalised, training_picture


@dataclass(frozen=True)
class Batch:
    """A batch on its way to the device: pictures [b, H, W, 3] in uint8, texts in the order in which they lie in a file.

    Texts are vectors [b, K, D] in a type of the store's, or token ids [b, K, L] where a text tower is trained along.
    `order` [b K] says which of these b K was drawn at each place, `facets` [b, K] the facet number drawn there.
    """

    pictures: Tensor
    texts: Tensor
    order: Tensor
    facets: Tensor
    keys: list[str]

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; DataLoader calls it."""
        pictures, texts, order, facets = (part.pin_memory() for part in self._tensors())
        return Batch(pictures, texts, order, facets, self.keys)

    def on(self, device: str) -> tuple[Tensor, Tensor, Tensor]:
        """What a step takes, on a device: normalised pictures [b, 3, H, W], texts and facet numbers as drawn."""
        pictures, texts, order, facets = (part.to(device, non_blocking=True) for part in self._tensors())
        return normalised(pictures), texts.flatten(0, 1)[order].view_as(texts), facets

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.pictures, self.texts, self.order, self.facets


class EpochOrder(Sampler[list[tuple[int, int]]]):
    """This rank's part of each batch, as (epoch, sample number), from a step on.

    An epoch's last samples that fill no batch are left out. The parts of all ranks, in order, are the batch of one.
    """

    def __init__(
        self, samples: int, batch_size: int, epochs: int, seed: int, first_step: int = 0, ranks: Ranks = ALONE
    ) -> None:
        self.batch_size = min(batch_size, samples)
        self.steps_per_epoch = samples // self.batch_size
        self.total_steps = self.steps_per_epoch * epochs
        self._samples, self._seed, self._first = samples, seed, first_step
        self._ranks = ranks

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first_epoch = self._first // self.steps_per_epoch
        for epoch in range(first_epoch, self.total_steps // self.steps_per_epoch):
            order = self._permutation(epoch)
            for i in range(self.steps_per_epoch):
                if epoch * self.steps_per_epoch + i >= self._first:
                    own = self.batch_size // self._ranks.world
                    start = i * self.batch_size + self._ranks.rank * own
                    yield [(epoch, number) for number in order[start : start + own]]

    def __len__(self) -> int:
        return self.total_steps - self._first

    def _permutation(self, epoch: int) -> array[int]:
        order = array("q", range(self._samples))
        random.Random(f"order {self._seed} {epoch}").shuffle(order)
        return order


class TrainingSamples(Dataset[Batch]):
    """A batch by (epoch, number) of its samples: augmented pictures, K drawn texts each, facet numbers and keys."""

    def __init__(
        self,
        index: Index,
        shards: Path,
        texts: TrainStore | CaptionSamples,
        slots: Sequence[int],
        params: TrainParams,
    ) -> None:
        self._index, self._slots, self._params = SharedIndex(index), list(slots), params
        self.texts = texts
        self._numbers = [facet_number(name) for name in texts.facets]
        self.facets = max(self._numbers[slot] for slot in self._slots)  # F, how many facets a picture may have
        self._pictures = PictureReader(shards)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def open_files(self) -> int:
        """How many files a process that reads all of them has open, with some to spare for everything else."""
        return (2 if isinstance(self.texts, TrainStore) else 1) * len(self._index.shards) + 256

    def __getitem__(self, samples: Sequence[tuple[int, int]]) -> Batch:
        params = self._params
        count = min(params.texts_per_image, len(self._slots))
        pictures, drawn, order, facets, keys = [], [], [], [], []
        for epoch, number in samples:
            row = self._index[number]
            draw = random.Random(text_sha256(f"sample {params.seed} {epoch} {row.key}"))
            jpeg = self._pictures.jpeg(row)
            pictures.append(training_picture(jpeg, params.model.image_size, params.augmentation, draw))
            slots = draw.sample(self._slots, count)
            in_file = sorted(slots)  # neighbours in the store are read together
            order += [len(drawn) * count + in_file.index(slot) for slot in slots]
            drawn.append(Drawn(row.shard, row.row, in_file))
            facets.append([self._numbers[slot] for slot in slots])
            keys.append(row.key)
        texts = self.texts.read(drawn)
        return Batch(torch.stack(pictures), texts, torch.tensor(order), torch.tensor(facets), keys)


def create_loader(samples: TrainingSamples, order: EpochOrder, workers: int, pin_memory: bool) -> Iterable[Batch]:
    """Batches in the order given, decoded by `workers` processes (0: in this one).

    Raises:
        ResourceError: there are more shards than this machine lets a process open.
    """
    _allow_open_files(samples.open_files)
    return DataLoader(
        samples,
        batch_size=None,  # the order gives the samples of a batch, and they are read together
        sampler=order,
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # it draws seeds for its workers, and must leave the training's alone
        multiprocessing_context="forkserver" if workers else None,
        worker_init_fn=partial(_in_worker, samples.open_files),
    )


def _in_worker(open_files: int, number: int) -> None:
    _allow_open_files(open_files)


def _allow_open_files(count: int) -> None:
    """Raise this process' own limit where it is lower; many systems set it to 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise ResourceError(
            f"training keeps the files of all shards open, {count} in all, and this machine allows a process {hard}: "
            "raise that limit (`ulimit -Hn`), or make ingest.shard_samples larger"
        )
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
