"""What a training reads besides pictures, as protocols: texts, and values stored per sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from flame_core.text.store import Drawn


class TrainingTexts(Protocol):
    """Where a training's texts come from: vectors of the embedding store, or captions for a text tower.

    Attributes:
        facets: names of a sample's texts, in the order of the numbers by which they are drawn.
        hidden: D, the dimensions of the texts' space.
        files_per_shard: how many files `read` keeps open per shard.
    """

    facets: list[str]
    hidden: int
    files_per_shard: int

    def read(self, samples: Sequence[Drawn]) -> Tensor:
        """The drawn texts of samples, K per sample: vectors [b, K, D], or token ids [b, K, L] for `encoder`."""
        ...

    def encoder(self) -> nn.Module | None:
        """A text tower to train, [N, L] to unit vectors [N, D], or of words [N, V]; None if texts are vectors."""
        ...

    def save(self, encoder: nn.Module | None, folder: Path) -> None:
        """Write the text side's files of a model folder; `encoder` is the trained one."""
        ...


class StoredValues(Protocol):
    """A small value per sample that a stage stored in a folder."""

    folder: Path

    def read(self, places: Sequence[tuple[str, int]]) -> Tensor:
        """Values [b, ...] of samples, given by shard and row."""
        ...
