"""The captions that prompts are learned from: different texts, each with its stored vector, and which are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from flame_core.data.shards import Index
from flame_core.digest import text_sha256
from flame_core.errors import InputError
from flame_core.params import Params, PromptsParams
from flame_core.text.caption_tokens import printable
from flame_core.text.jobs import captions_a_sample, facet_number, reading_of, training_job
from flame_core.text.store import Drawn, TrainStore

_PLACES = 2**32


@dataclass(frozen=True)
class Sentences:
    """N different captions.

    Attributes:
        texts: of the captions.
        places: where the vector of each is stored.
        store: of the vectors; None if they are not read.
        held_out: share of the captions that are not learned.
    """

    texts: list[str]
    places: list[Drawn]
    store: TrainStore | None
    held_out: float

    def vectors(self, numbers: Sequence[int]) -> Tensor:
        """Stored vectors [n, D] in float32 of captions by their numbers."""
        assert self.store is not None
        return self.store.read([self.places[number] for number in numbers])[:, 0].float()

    def texts_of(self, numbers: Sequence[int]) -> list[str]:
        """Captions by their numbers."""
        return [self.texts[number] for number in numbers]

    @cached_property
    def learned(self) -> list[int]:
        """Numbers of the captions that are learned."""
        return [i for i, place in enumerate(self._draws) if place >= self.held_out * _PLACES]

    @cached_property
    def tested(self) -> list[int]:
        """Numbers of the captions that are held out, in an order that says nothing about them."""
        own = [i for i, place in enumerate(self._draws) if place < self.held_out * _PLACES]
        return sorted(own, key=lambda i: self._draws[i])

    @cached_property
    def _draws(self) -> list[int]:
        """A whole number below 2^32 per caption, which follows from its text."""
        return [int(text_sha256(f"held out {text}")[:8], 16) for text in self.texts]


def slots_by_kind(names: Sequence[str], chosen: PromptsParams) -> dict[str, list[int]]:
    """{kind: numbers of the slots that are read}, one per caption of a sample: first facets, or sentences."""
    found: dict[str, list[int]] = {}
    for kind in chosen.kinds:
        own = [i for i, name in enumerate(names) if name.partition("/")[0] == kind]
        found[kind] = [i for i in own if reading_of(names[i]) == chosen.reading and facet_number(names[i]) in (0, 1)]
    return found


def read_sentences(
    chosen: PromptsParams, params: Params, captions: Path, index: Index, store: TrainStore | None
) -> Sentences:
    """The different captions of the training split, in the order of the shards; of equal ones, the first.

    Raises:
        InputError: too few are left to learn and to test.
    """
    first: dict[str, Drawn] = {}
    slots = slots_by_kind(store.facets, chosen) if store else {}
    for shard, rows in sorted(index.shard_sizes().items()):
        job = training_job(captions, shard, params.text, params.evaluate.train_language)
        for kind in chosen.kinds:
            count = captions_a_sample(kind, params.text)
            for place, text in enumerate(job.texts[kind]):
                row, number = divmod(place, count)
                if clean := printable(text):
                    first.setdefault(clean, Drawn(shard, row, [slots[kind][number]] if store else []))
            assert len(job.texts[kind]) == rows * count
    found = Sentences(list(first), list(first.values()), store, chosen.held_out)
    if len(found.learned) < chosen.batch_size or not found.tested:
        raise InputError(
            f"prompts: {len(found.texts)} different captions are {len(found.learned)} to learn, of which a batch needs "
            f"{chosen.batch_size}, and {len(found.tested)} held out: lower prompts.batch_size or raise prompts.held_out"
        )
    return found


def standard(sentences: Sentences, most: int, seed: int) -> Tensor:
    """Vectors [n, D] of at most so many captions that are learned, for their mean and deviation."""
    numbers = sentences.learned
    if len(numbers) > most:
        drawn = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(seed))[:most]
        numbers = [numbers[i] for i in drawn.sort().values.tolist()]
    return torch.cat([sentences.vectors(numbers[i : i + 4096]) for i in range(0, len(numbers), 4096)])
