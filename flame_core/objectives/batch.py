"""What a term of an objective gets in a step: the batch, the towers' features, and the progress of the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

Features = Mapping[str, Tensor]
"""Outputs of the towers by name; a step computes only those that a term reads.

    z        [b, V, 1 + F, D]  unit vectors in the texts' space: the picture as a whole, then its facets
    pooled   [b, V, C]         the backbone's patch tokens, averaged; not normalised
    cls      [b, V, C]         the backbone's CLS token
    patches  [b, V, N, C]      the backbone's patch tokens
    prompts  [b, V, n, H]      the connector's prompts for the LLM
    t        [b, K, D]         unit vectors of the texts; always there. With `lora` of words, as z then is

b pictures of this rank, V views of each, K texts, F facets, N patches; C is the backbone's width.
"""


@dataclass(frozen=True)
class Batch:
    """This rank's part of a batch, on the device of the training.

    Attributes:
        pictures: [b, V, 3, H, W], normalised; or [b, V, C], a frozen tower's stored vectors of them.
        boxes: [b, V, 5], the crop of each view: left, top, right and bottom as fractions of the whole picture, and 1 if
            the view was mirrored after that, else 0.
        texts: from the text side: vectors [b, K, D] of any float type, or token ids [b, K, L].
        facets: [b, K] facet numbers of the texts, from 1; 0 means no facet. On the CPU, so that a step can count them
            without waiting for a GPU.
        rows: [b] numbers of the samples among all that are trained on, from 0.
        keys: of the samples.
        extra: one row per sample, by name: the sidecars, and what `Term.prepare` adds.
        keep: [b, V, M] numbers of the patches of each view that the tower sees, chosen by `Term.prepare`; None: all.
        around: [b, 3, S, S], normalised: the smallest box that contains all views, without other changes, at the size
            that a term asks for (`Needs.around`); None if none does.
    """

    pictures: Tensor
    boxes: Tensor
    texts: Tensor
    facets: Tensor
    rows: Tensor
    keys: list[str]
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    keep: Tensor | None = None
    around: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, part: slice) -> Batch:
        return Batch(
            self.pictures[part],
            self.boxes[part],
            self.texts[part],
            self.facets[part],
            self.rows[part],
            self.keys[part],
            {name: value[part] for name, value in self.extra.items()},
            None if self.keep is None else self.keep[part],
            None if self.around is None else self.around[part],
        )

    def split(self, size: int) -> list[Batch]:
        """Consecutive parts of at most `size` samples."""
        return [self[start : start + size] for start in range(0, len(self), size)]

    def in_parts(self, run: Callable[[Batch], Tensor], size: int | None) -> Tensor:
        """What `run` makes of parts of at most `size` samples, joined; of the whole batch if `size` is None."""
        return torch.cat([run(part) for part in self.split(size or len(self))])

    def to(self, device: str) -> Batch:
        """The same batch on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("pictures", "boxes", "texts", "rows")}
        for name in ("keep", "around"):
            value = getattr(self, name)
            moved[name] = None if value is None else value.to(device)
        return replace(self, **moved, extra={name: value.to(device) for name, value in self.extra.items()})

    def keeping(self, patches: Tensor) -> Batch:
        """The same batch, of whose views the tower sees only these patches, [b, V, M]."""
        return replace(self, keep=patches)

    def with_extra(self, **values: Tensor) -> Batch:
        """The same batch with further values, one row per sample."""
        return replace(self, extra={**self.extra, **values})


@dataclass(frozen=True)
class Moment:
    """The progress of a training: `step` of `steps`, both over all epochs; steps count from 0."""

    step: int
    steps: int
    steps_per_epoch: int

    @property
    def epoch(self) -> int:
        return self.step // self.steps_per_epoch
