"""What a recipe minimises: its main term and further terms, each with its weight, and the teacher that they share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from flame_core.objectives.batch import Batch, Features, Moment
from flame_core.objectives.teacher import Teacher
from flame_core.objectives.term import Term
from flame_core.params.training import OptimizerParams
from flame_core.processes.ranks import Ranks
from flame_core.vision.masked_tower import Masks
from flame_core.vision.tower import ImageTower


class Objective(nn.Module):
    """Terms by name, the main one first. It has the methods of a term and calls them on each.

    If terms need features of a teacher (`Needs.taught`), it looks at each batch first, `at_once` pictures at a time.
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        teacher: Teacher | None = None,
        taught: Collection[str] = (),
        at_once: int | None = None,
    ) -> None:
        super().__init__()
        self.terms = nn.ModuleDict(terms)
        self.main = next(iter(terms))
        self.teacher, self._taught, self._at_once = teacher, sorted(taught), at_once
        self._at: Moment | None = None  # of the step that was prepared last
        for module in self.frozen():
            module.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.frozen():
            module.eval()
        return self

    @torch.no_grad()
    def prepare(self, batch: Batch, tower: ImageTower, at: Moment, ranks: Ranks) -> Batch:
        """See `Term.prepare`."""
        self._at = at
        if self.teacher is not None:
            batch = self.teacher.look(batch, self._taught, self._at_once)
        for _, term in self._counting():
            batch = term.prepare(batch, tower, at, ranks)
        return batch

    @property
    def phased(self) -> bool:
        """Whether a term counts only in a part of the steps."""
        return any(term.during is not None for term in self._terms())

    def counting_at(self, at: Moment) -> frozenset[str]:
        """Names of the terms that count in a step."""
        return frozenset(name for name, term in self._named() if term.is_active(at))

    @property
    def reads(self) -> frozenset[str]:
        """The image tower's features that the terms read that count in the prepared step."""
        return frozenset[str]().union(*(term.reads for _, term in self._counting()))

    @property
    def reads_vary(self) -> bool:
        """Whether there are steps that read pictures, but not all the features that other steps read."""
        terms = list(self._terms())
        starts = {0.0, *(share for term in terms for share in term.during or ())} - {1.0}
        read = [
            frozenset[str]().union(*(t.reads for t in terms if t.during is None or t.during[0] <= start < t.during[1]))
            for start in starts
        ]
        return len({each for each in read if each}) > 1

    def busiest(self, steps: int) -> int:
        """The first step in which most terms count, of `steps`."""
        starts = sorted({round(term.during[0] * steps) for term in self._terms() if term.during} | {0})
        return max(starts, key=lambda step: sum(term.is_active(Moment(step, steps, steps)) for term in self._terms()))

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        """This rank's weighted shares of the loss by name. Their sum is minimised.

        If a term has one share, it has the term's name; several shares are named `<term>/<share>`.
        """
        weighted = {}
        for name, term in self._counting():
            shares = term(features, batch, ranks)
            if not isinstance(shares, Mapping):
                raise TypeError(f"the term {name} returns its loss as {{name: number}}, not {type(shares).__name__}")
            for share, value in shares.items():
                if value.ndim:
                    raise TypeError(
                        f"the share {share} of the term {name} has the shape {list(value.shape)}, and is a number: the "
                        "sum over this rank's pictures, divided by the number of all ranks' pictures"
                    )
                weighted[name if len(shares) == 1 else f"{name}/{share}"] = term.weight * value
        return weighted

    @property
    def prunes(self) -> bool:
        """Whether the tower will still be pruned."""
        return any(term.prunes for term in self._terms())

    def after_backward(self, world: int) -> None:
        """See `Term.after_backward`."""
        for term in self._terms():
            term.after_backward(world)

    @torch.no_grad()
    def pruning(self, at: Moment) -> Masks | None:
        """See `Term.pruning`; at most one term prunes."""
        return next((masks for term in self._terms() if (masks := term.pruning(at)) is not None), None)

    @torch.no_grad()
    def after_step(self, tower: ImageTower, features: Features, batch: Batch, at: Moment, ranks: Ranks) -> None:
        """See `Term.after_step`."""
        for _, term in self._counting():
            term.after_step(tower, features, batch, at, ranks)

    def groups(self, optimizer: OptimizerParams) -> list[dict[str, Any]]:
        """The terms' parameter groups, without the empty ones."""
        return [group for term in self._terms() for group in term.groups(optimizer) if group["params"]]

    def frozen(self) -> list[nn.Module]:
        """The teacher, and the frozen submodules of all terms."""
        own: list[nn.Module] = [] if self.teacher is None else [self.teacher]
        return own + [module for term in self._terms() for module in term.frozen()]

    def scalars(self) -> dict[str, float | Tensor]:
        """The terms' values for the report; names begin with `<term>/`, except those of the main term."""
        return {
            name if term == self.main else f"{term}/{name}": value
            for term, module in self._named()
            for name, value in module.scalars().items()
        }

    def state(self) -> dict[str, Tensor]:
        """Parameters and buffers for a checkpoint, without those of frozen modules."""
        frozen = self._frozen_names()
        return {name: value for name, value in self.state_dict().items() if name not in frozen}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Load what `state` returned.

        Raises:
            RuntimeError: it is not the state of these terms.
        """
        own = self.state_dict()
        self.load_state_dict({**{name: own[name] for name in self._frozen_names()}, **state})

    def _frozen_names(self) -> set[str]:
        frozen = {id(module) for module in self.frozen()}
        prefixes = tuple(f"{name}." for name, module in self.named_modules() if id(module) in frozen)
        return {name for name in self.state_dict() if name.startswith(prefixes)} if prefixes else set()

    def _named(self) -> Iterable[tuple[str, Term]]:
        return ((name, term) for name, term in self.terms.items() if isinstance(term, Term))

    def _counting(self) -> Iterable[tuple[str, Term]]:
        """The terms that count in the prepared step; all if none was prepared."""
        return ((name, term) for name, term in self._named() if self._at is None or term.is_active(self._at))

    def _terms(self) -> Iterable[Term]:
        return (term for _, term in self._named())
