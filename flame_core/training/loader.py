"""Training batches: samples by index, in an order and with draws that depend only on the seed and the epoch.

Workers, restarts and machines do not change a batch: the order of an epoch is a permutation drawn from
(seed, epoch), and a sample's crops and K texts are drawn from (seed, epoch, key).
"""

from __future__ import annotations

import multiprocessing
import random
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

from flame_core.data.noise_order import NOISE, text_rows
from flame_core.data.shards import Index, PictureReader
from flame_core.data.sidecars import Sidecar
from flame_core.digest import text_sha256
from flame_core.errors import ResourceError
from flame_core.objectives import recipe_needs
from flame_core.objectives.batch import Batch
from flame_core.objectives.stored_teacher import StoredVectors
from flame_core.params import TrainParams
from flame_core.params.training import FEATURES
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.text.jobs import facet_number
from flame_core.text.store import Drawn
from flame_core.training.sampling import Draws, Uniform
from flame_core.training.shared_index import SharedIndex, StoredSample
from flame_core.training.texts import StoredValues, TrainingTexts
from flame_core.vision.decoding import open_with
from flame_core.vision.nvjpeg import EncodedPictures, cut_in_groups, picture_size
from flame_core.vision.stored_features import StoredPictures
from flame_core.vision.views import View, box_around, normalised, training_view, uncut_view, view_around


@dataclass(frozen=True)
class Uncut:
    """Pictures that a GPU decodes and cuts: views of `size` pixels and, if not 0, one of `around` around them."""

    encoded: EncodedPictures
    size: int
    around: int

    def cut(self, boxes: Tensor, device: str) -> tuple[Tensor, Tensor | None]:
        """`pictures` and `around` of a batch with these boxes, on a device."""
        pictures = self.encoded.decode(device)
        views = cut_in_groups(pictures, boxes, self.size)
        if not self.around:
            return views, None
        whole = F.pad(box_around(boxes), (0, 1))[:, None]  # not mirrored
        return views, cut_in_groups(pictures, whole, self.around)[:, 0]


_READ = 65536  # places in the order of noise that are read at once


@dataclass(frozen=True)
class LoadedBatch:
    """A batch before it is used: pictures [b, V, H, W, 3] in uint8, texts in the order of their files.

    A frozen tower's stored vectors stand in place of pictures, [b, V, C] in float32.

    `around` [b, S, S, 3] is in uint8 too; `order` [b K] holds the index of the text that was drawn at each place; the
    rest is as in `Batch`. `facets` stays on the CPU. If a GPU decodes, the pictures are still to be cut.
    """

    pictures: Tensor | Uncut
    boxes: Tensor
    texts: Tensor
    order: Tensor
    facets: Tensor
    rows: Tensor
    keys: list[str]
    extra: dict[str, Tensor]
    around: Tensor | None = None

    def pin_memory(self) -> LoadedBatch:
        """The same batch in page-locked memory; DataLoader calls it."""
        return self._each(Tensor.pin_memory)

    def on(self, device: str) -> Batch:
        """The batch on a device, as a step expects it."""
        return self.moved(device).ready()

    def moved(self, device: str) -> LoadedBatch:
        """The batch copied to a device, where its pictures are decoded and cut if they are not yet."""
        moved = self._each(partial(Tensor.to, device=device, non_blocking=True))
        if isinstance(self.pictures, Tensor):
            return moved
        pictures, around = self.pictures.cut(self.boxes, device)
        return replace(moved, pictures=pictures, around=around)

    def ready(self) -> Batch:
        """The moved batch, as a step expects it, with the texts in the order in which they were drawn."""
        assert isinstance(self.pictures, Tensor)
        texts = self.texts.flatten(0, 1)[self.order].view_as(self.texts)
        around = None if self.around is None else normalised(self.around)
        pictures = normalised(self.pictures) if self.pictures.dtype == torch.uint8 else self.pictures
        return Batch(
            pictures, self.boxes, texts, self.facets, self.rows, self.keys, self.extra, keep=None, around=around
        )

    def tensors(self) -> list[Tensor]:
        """All of its tensors, except those of pictures that are still to be cut."""
        found: list[Tensor] = []
        self._each(lambda tensor: found.append(tensor) or tensor)
        return found

    def _each(self, move: Callable[[Tensor], Tensor]) -> LoadedBatch:
        return LoadedBatch(
            move(self.pictures) if isinstance(self.pictures, Tensor) else self.pictures,
            move(self.boxes),
            move(self.texts),
            move(self.order),
            self.facets,
            move(self.rows),
            self.keys,
            {name: move(value) for name, value in self.extra.items()},
            None if self.around is None else move(self.around),
        )


class EpochOrder(Sampler[list[tuple[int, int]]]):
    """This rank's part of each batch, as (epoch, sample number), from a given step on.

    `draws` says which samples an epoch has, by default each once. Its last samples are left out if they do not fill a
    batch. The parts of all ranks, in order, are the same batch as on one rank.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        epochs: int,
        seed: int,
        first_step: int = 0,
        ranks: Ranks = ALONE,
        draws: Draws | None = None,
    ) -> None:
        self.batch_size = min(batch_size, samples)
        self.steps_per_epoch = samples // self.batch_size
        self.total_steps = self.steps_per_epoch * epochs
        self._first, self._draws = first_step, draws or Uniform(samples, seed)
        self._ranks = ranks

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first_epoch = self._first // self.steps_per_epoch
        for epoch in range(first_epoch, self.total_steps // self.steps_per_epoch):
            batch = self._draws.epoch(epoch, self.batch_size)
            for i in range(self.steps_per_epoch):
                if epoch * self.steps_per_epoch + i >= self._first:
                    own = self.batch_size // self._ranks.world
                    start = self._ranks.rank * own
                    yield [(epoch, number) for number in batch(i)[start : start + own]]

    def __len__(self) -> int:
        return self.total_steps - self._first


class TrainingSamples(Dataset[LoadedBatch]):
    """A batch by (epoch, number) of its samples: V views of each picture, K drawn texts, and stored values.

    More views do not change the draws of the first view and of the texts. With `noise` in the recipe, the texts of some
    samples are those of others, and so are the values of sidecars, which are of texts; pictures stay. With a teacher's
    stored vectors, an epoch repeats the crops that its vectors are of; texts are drawn anew.
    """

    def __init__(
        self,
        index: Index,
        shards: Path,
        texts: TrainingTexts,
        slots: Sequence[int],
        params: TrainParams,
        sidecars: Mapping[str, StoredValues] | None = None,
        taught: StoredVectors | None = None,
    ) -> None:
        self._index, self._slots, self._params = SharedIndex(index), list(slots), params
        self._views = recipe_needs(params).views
        self._around = round(recipe_needs(params).around * params.model.image_size)
        self._sidecars = dict(sidecars or {})
        stored = self._sidecars.pop(FEATURES, None) if params.reads_features else None
        self._stored = StoredPictures(stored, params.augmentation.flip) if isinstance(stored, Sidecar) else None
        self._said = _text_rows(self._sidecars.pop(NOISE), index, params.noise) if params.noise else None
        self._taught, self._crops = taught, params.crops
        self.texts = texts
        self._numbers = [facet_number(name) for name in texts.facets]
        self.facets = max(self._numbers[slot] for slot in self._slots)  # F, how many facets a picture may have
        self._pictures = PictureReader(shards)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def slots(self) -> list[str]:
        """Names of a sample's texts that are drawn from."""
        return [self.texts.facets[slot] for slot in self._slots]

    @property
    def sidecar_folders(self) -> dict[str, Path]:
        """Where the stored values lie, by sidecar."""
        return {name: sidecar.folder for name, sidecar in self._sidecars.items()}

    def stored(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Stored values of samples by sidecar; numbers beyond the last sample start again from 0."""
        rows = [self._index[number % len(self)] for number in numbers]
        places = [(row.shard, row.row) for row in rows]
        return self._extra(places, places, [0] * len(places))

    def _extra(
        self, places: Sequence[tuple[str, int]], said: Sequence[tuple[str, int]], crops: Sequence[int]
    ) -> dict[str, Tensor]:
        """Stored values of the texts at `said`, and the stored teacher's features of the crops of pictures at `places`.

        Places are shard and row.
        """
        values = {name: sidecar.read(said) for name, sidecar in self._sidecars.items()}
        return values | (self._taught.read(places, crops) if self._taught else {})

    @property
    def open_files(self) -> int:
        """How many files a process keeps open if it reads all shards, with some to spare for everything else."""
        stored = len(self._sidecars) + (self._taught.files_per_shard if self._taught else 0)
        return (1 + self.texts.files_per_shard + stored) * len(self._index.shards) + 256

    def __getitem__(self, samples: Sequence[tuple[int, int]]) -> LoadedBatch:
        loaded = [self._sample(epoch, number) for epoch, number in samples]
        size, texts = self._params.model.image_size, [each.texts for each in loaded]
        places = [(each.row.shard, each.row.row) for each in loaded]
        pixels = torch.stack([view.pixels for each in loaded for view in each.views]).unflatten(0, (-1, self._views))
        if self._stored:
            pixels = self._stored.read(places, pixels)
        contents = [each.encoded for each in loaded if each.encoded is not None]
        around = [each.around for each in loaded if each.around is not None]
        count = len(loaded[0].slots)
        return LoadedBatch(
            pictures=Uncut(EncodedPictures.of(contents), size, self._around) if contents else pixels,
            boxes=torch.tensor([[view.place for view in each.views] for each in loaded]),
            texts=self.texts.read(texts),
            order=torch.tensor(
                [i * count + each.texts.facets.index(slot) for i, each in enumerate(loaded) for slot in each.slots]
            ),
            facets=torch.tensor([[self._numbers[slot] for slot in each.slots] for each in loaded]),
            rows=torch.tensor([number for _, number in samples]),
            keys=[each.row.key for each in loaded],
            extra=self._extra(places, [(each.shard, each.row) for each in texts], [each.crop for each in loaded]),
            around=torch.stack(around) if around else None,
        )

    def _sample(self, epoch: int, number: int) -> _Sample:
        params, row = self._params, self._index[number]
        crop = epoch % self._crops if self._crops else epoch
        draw = random.Random(text_sha256(f"sample {params.seed} {crop} {row.key}"))
        picture, encoded = None, None
        if self._stored:
            view = partial(self._stored.view, draw)
        elif params.decoder == "nvjpeg":
            encoded = self._pictures.jpeg(row)
            view = partial(uncut_view, *picture_size(encoded), params.augmentation, draw)
        else:
            picture = open_with(params.decoder, self._pictures.jpeg(row))
            view = partial(training_view, picture, params.model.image_size, params.augmentation, draw)
        first = view()
        again = draw if crop == epoch else random.Random(text_sha256(f"texts {params.seed} {epoch} {row.key}"))
        slots = again.sample(self._slots, min(params.texts_per_image, len(self._slots)))
        views = [first, *(view() for _ in range(1, self._views))]
        around = view_around(picture, self._around, views) if self._around and picture is not None else None
        said = row if self._said is None else self._index[int(self._said[number])]
        in_file = sorted(slots)  # texts that are adjacent in the store are read together
        return _Sample(row, crop, views, around, encoded, slots, Drawn(said.shard, said.row, in_file))


class _Sample(NamedTuple):
    """A sample as it is loaded.

    Attributes:
        row: its place.
        crop: the number of its crops.
        views: V, without pixels if a GPU decodes or the pictures' vectors are stored.
        around: the crop around all views, [S, S, 3], if a term asks for it.
        encoded: the picture's bytes, if a GPU decodes.
        slots: K drawn texts, in the order of their draw.
        texts: the same in the order of their file, of the sample whose texts it has.
    """

    row: StoredSample
    crop: int
    views: list[View]
    around: Tensor | None
    encoded: bytes | None
    slots: list[int]
    texts: Drawn


def _text_rows(order: StoredValues, index: Index, share: float) -> Tensor:
    """For each sample the number of the one whose texts it gets, [N]; workers share the memory."""
    drawn = []
    for start in range(0, len(index), _READ):
        part = index.table.slice(start, _READ)
        places = zip(part.column("shard").to_pylist(), part.column("row").to_pylist(), strict=True)
        drawn.append(order.read(list(places)).numpy())
    return torch.from_numpy(text_rows(np.concatenate(drawn), share))


def create_loader(
    samples: TrainingSamples, order: Iterable[list[tuple[int, int]]], workers: int, pin_memory: bool
) -> Iterable[LoadedBatch]:
    """Batches in the given order, decoded by `workers` processes (0: in this one).

    Raises:
        ResourceError: this machine does not let a process open enough files.
    """
    _allow_open_files(samples.open_files)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once for all workers
    return DataLoader(
        samples,
        batch_size=None,  # the order gives the samples of a batch, and they are read together
        sampler=order,
        num_workers=workers,
        prefetch_factor=1 if workers else None,  # an item is a whole batch, which waits in shared memory
        pin_memory=pin_memory,
        generator=torch.Generator(),  # draws the workers' seeds without changing the training's generator
        multiprocessing_context=context if workers else None,
        worker_init_fn=partial(_in_worker, samples.open_files),
    )


def _in_worker(open_files: int, number: int) -> None:
    _allow_open_files(open_files)


def _allow_open_files(count: int) -> None:
    """Raise this process's own limit if it is lower; many systems set it to 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise ResourceError(
            f"training keeps the files of all shards open, {count} in all, but this machine allows {hard} per process: "
            "raise that limit (`ulimit -Hn`), or make ingest.shard_samples larger"
        )
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
