"""A term of an objective: a module with state and a few methods to override. A training method is one or more terms.

The code for pieces of a batch, ranks, checkpoints and resume does not depend on terms. A step calls, in this order:
`prepare`, the towers on the views, `forward`, backward, `after_backward`, the optimiser, `after_step`. Parameters and
buffers of a term are part of every checkpoint, so moving averages, tables and heads resume exactly; what `frozen`
returns is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flame_core.objectives.batch import Batch, Features, Moment
from flame_core.params import TermParams, TrainParams
from flame_core.params.training import OptimizerParams
from flame_core.processes.ranks import Ranks
from flame_core.stepping.weight_decay import parameter_groups
from flame_core.vision.masked_tower import Masks
from flame_core.vision.tower import ImageTower

ONE_SAMPLE = "its head takes the statistics of a batch, which one picture has not: set batch_size to 2 or more"


@dataclass(frozen=True)
class Needs:
    """What a term needs from a step, known from its params only, before anything is built.

    Attributes:
        views: how many crops of each picture.
        reads: names of the towers' features (`batch.Features`); `t` is always there.
        sidecars: names of the stored values of each sample's texts that `Batch.extra` must hold.
        around: the side of `Batch.around` as a share of `model.image_size`; 0: not needed. The largest of all terms.
        copies: whether it keeps a copy of the tower, or of a part of it, while the tower learns.
        taught: names of the teacher's features that `Batch.extra` must hold (`teacher.taught`), of each first view.
        texts: whether it reads the texts `t`, which may be trained too.
    """

    views: int = 1
    reads: frozenset[str] = frozenset({"z"})
    sidecars: tuple[str, ...] = ()
    around: float = 0.0
    copies: bool = False
    taught: frozenset[str] = frozenset()
    texts: bool = False


def together(terms: Iterable[Needs]) -> Needs:
    """What several terms need together."""
    each = list(terms)
    return Needs(
        views=max(needs.views for needs in each),
        reads=frozenset[str]().union(*(needs.reads for needs in each)),
        sidecars=tuple(dict.fromkeys(name for needs in each for name in needs.sidecars)),
        around=max(needs.around for needs in each),
        copies=any(needs.copies for needs in each),
        taught=frozenset[str]().union(*(needs.taught for needs in each)),
        texts=any(needs.texts for needs in each),
    )


@dataclass(frozen=True)
class Setup:
    """What a term is built for.

    Attributes:
        tower: the newly initialised image tower, not wrapped. A term may copy it but must not keep it, or it would own
            the tower's weights.
        batch_size: pictures per step, over all ranks.
        samples: number of training samples, so of rows in a table that `Batch.rows` indexes.
        hidden: D, dimensions of the texts' space.
        teacher: the folder of the model that the recipe names as its teacher; `vision.tower.load_tower` reads it.
        micro_batch_size: pictures that memory has room for at once, on this rank; None: all. A teacher or an average of
            the tower runs in such parts too (`Batch.in_parts`).
        sidecars: folders of the sidecars by name, for what lies there beside the values.
        taught: dimensions of the teacher's features by name, if a term needs any.
        steps: of the whole training.
        trained_words: whether `t` are weights of words that the LLM gives with adapters, trained along.
        prompts: the folder of the prompt head that the recipe names.
        reading: of the recipe's texts.
    """

    tower: ImageTower
    batch_size: int
    samples: int
    hidden: int
    teacher: Path | None = None
    micro_batch_size: int | None = None
    sidecars: Mapping[str, Path] = field(default_factory=dict)
    taught: Mapping[str, int] = field(default_factory=dict)
    steps: int = 0
    trained_words: bool = False
    prompts: Path | None = None
    reading: str = "facets"


class Term(nn.Module):
    """Base of all terms. A subclass creates its state in `__init__` and overrides the methods that it needs."""

    prunes = False  # whether `pruning` will return masks

    def __init__(self, params: TermParams, setup: Setup) -> None:
        super().__init__()
        self.weight = params.weight
        self.during: tuple[float, float] | None = getattr(params, "during", None)
        self.reads = self.needs(params).reads

    def is_active(self, at: Moment) -> bool:
        """Whether the term counts in a step; if not, only `after_backward` and `pruning` are called."""
        if self.during is None:
            return True
        first, last = (round(share * at.steps) for share in self.during)
        return first <= at.step < last

    @classmethod
    def needs(cls, params: Any) -> Needs:
        """What a term with these params needs from a step."""
        return Needs()

    @classmethod
    def faults(cls, params: Any, recipe: TrainParams, tower: ImageTower) -> Iterator[str]:
        """Why a term with these params does not suit a recipe or its tower, which may be without weights."""
        yield from ()

    def prepare(self, batch: Batch, tower: ImageTower, at: Moment, ranks: Ranks) -> Batch:
        """The batch, with values that must be computed before the towers run; called without gradient."""
        return batch

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> Mapping[str, Tensor]:
        """This rank's shares of the loss by name; the sum of a share over all ranks is that of the whole batch.

        A head with batch statistics takes the gathered features (`Ranks.gather`), so that its statistics and its
        gradients do not depend on the number of ranks.
        """
        raise NotImplementedError

    def after_backward(self, world: int) -> None:
        """Carry on the gradients of what `prepare` gave to the tower, which are `world` times this rank's part."""

    def pruning(self, at: Moment) -> Masks | None:
        """The masks by which the tower is pruned before the step `at`, once; None: it stays as it is."""

    def after_step(self, tower: ImageTower, features: Features, batch: Batch, at: Moment, ranks: Ranks) -> None:
        """Change the state after an optimiser step; called without gradient.

        `features` and `batch` are this rank's, but the state must stay the same on all ranks, so gather what it takes
        from them first (`Ranks.gather`). A checkpoint holds each tensor once, from one of the ranks.
        """

    def groups(self, optimizer: OptimizerParams) -> list[dict[str, Any]]:
        """Parameter groups for AdamW: weight decay for heads' weights, none for 1-d parameters and scalars."""
        return parameter_groups([p for p in self.parameters() if p.requires_grad], optimizer.weight_decay)

    def frozen(self) -> Iterable[nn.Module]:
        """Submodules that come from files, such as a teacher: never trained, saved, or in train mode."""
        return ()

    def scalars(self) -> dict[str, float | Tensor]:
        """Values that are reported with each step: numbers, or scalars that a GPU may still compute, detached."""
        return {}


class DrawingTerm(Term):
    """A term that draws at random, in each step from its seed: the same on all ranks and after a resume."""

    seed: Tensor
    _known: int | None = None

    def keep_seed(self) -> None:
        """Draw the seed, which checkpoints hold."""
        self.register_buffer("seed", torch.randint(2**62, ()))
        self.register_load_state_dict_post_hook(_forget_seed)

    def generator(self, at: Moment) -> torch.Generator:
        """What draws in this step, on the CPU."""
        if self._known is None:
            self._known = int(self.seed)  # once: a GPU is waited for
        return torch.Generator().manual_seed(self._known + at.step)


def _forget_seed(term: DrawingTerm, keys: object) -> None:
    term._known = None
