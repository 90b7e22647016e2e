"""The cost of training a recipe as figures: FLOPs and bytes of towers, objective and stored weights, and their sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class TowerCost:
    """One tower in a step. Its items are views of pictures, or captions.

    Attributes:
        weights: number of trained weights.
        forward_flops: per item.
        activation_bytes: kept for backward, per item.
        fixed_bytes: weights, gradients, moments, and everything else that does not grow with the items.
        items: per picture: views, or different captions on average.
        own: items per step on one process.
        held: items whose activations a process holds at once.
        recomputes: whether backward runs forward again, in order to keep less.
        backwards: cost of backward in forwards: 2, or 1 past frozen weights.
    """

    weights: int
    forward_flops: float
    activation_bytes: int
    fixed_bytes: int
    items: float
    own: int
    held: int
    recomputes: bool = False
    backwards: float = 2.0

    @property
    def forwards(self) -> int:
        """How often an item passes forward in a step."""
        return 1 + (self.held < self.own) + self.recomputes

    @property
    def flops(self) -> float:
        """FLOPs per picture in a step."""
        return self.items * self.forward_flops * (self.forwards + self.backwards)

    @property
    def useful_flops(self) -> float:
        """The same without what is computed again only to keep less."""
        return self.items * self.forward_flops * (1 + self.backwards)

    @property
    def memory(self) -> int:
        """Bytes that a process needs for the tower."""
        return self.fixed_bytes + self.held * self.activation_bytes

    def holding(self, most: int) -> TowerCost:
        """The cost with gradients in pieces of `most` items."""
        return replace(self, held=min(self.held, most))


@dataclass(frozen=True)
class ObjectiveCost:
    """The cost of the losses, with the heads, tables and teachers of their terms.

    Attributes:
        weights: number of trained weights.
        flops: per step over all processes, forward and backward.
        memory: bytes that a process needs: its weights and state, and what is kept for backward.
        before_flops: per step over all processes, of what the terms do before the towers run.
    """

    weights: int
    flops: float
    memory: int
    before_flops: float = 0.0


@dataclass(frozen=True)
class StoringCost:
    """What it takes to store a teacher's vectors before the first step: FLOPs in all, and bytes in the work cache."""

    flops: float
    bytes: int


@dataclass(frozen=True)
class TrainingCost:
    """The cost of training one recipe.

    Attributes:
        image: the image tower with its projector.
        text: the text tower, if one is trained.
        objective: everything that the terms add.
        input_bytes: pictures, and texts as they are stored, per step on one process.
        steps: optimiser steps.
        batch_size: pictures per step, over all processes.
        texts: drawn per picture and step.
        chosen: {field of the recipe that is `auto`: its value for so many samples}.
        draws: whether the towers draw at random in a step (dropout, stochastic depth), so pieces draw other values.
        storing: of a teacher's vectors, if they are stored.
    """

    image: TowerCost
    text: TowerCost | None
    objective: ObjectiveCost
    input_bytes: int
    steps: int
    batch_size: int
    texts: int
    chosen: Mapping[str, int]
    draws: bool = False
    storing: StoringCost | None = None

    @property
    def towers(self) -> dict[str, TowerCost]:
        """The towers by name."""
        return {"image tower": self.image, **({} if self.text is None else {"text tower": self.text})}

    @property
    def weights(self) -> int:
        """Number of trained weights."""
        return sum(tower.weights for tower in self.towers.values()) + self.objective.weights

    @property
    def step_flops(self) -> dict[str, float]:
        """FLOPs of one step over all processes, by part."""
        towers = {name: self.batch_size * tower.flops for name, tower in self.towers.items()}
        before = {"before the towers": self.objective.before_flops} if self.objective.before_flops else {}
        return {**towers, **before, "objective": self.objective.flops}

    @property
    def useful_step_flops(self) -> float:
        """FLOPs of one step over all processes, without what is computed again only to keep less."""
        towers = sum(self.batch_size * tower.useful_flops for tower in self.towers.values())
        return towers + self.objective.before_flops + self.objective.flops

    @property
    def flops(self) -> float:
        """FLOPs of the whole training."""
        return self.steps * sum(self.step_flops.values()) + (self.storing.flops if self.storing else 0.0)

    @property
    def held(self) -> int:
        """Pictures whose activations a process holds at once."""
        return round(self.image.held / self.image.items)

    @property
    def memory_parts(self) -> dict[str, int]:
        """Bytes that a process needs, by part."""
        towers = {name: tower.memory for name, tower in self.towers.items()}
        return {**towers, "objective": self.objective.memory, "input": self.input_bytes}

    @property
    def memory(self) -> int:
        """Bytes that a process needs at its peak."""
        return sum(self.memory_parts.values())

    def with_micro_batch(self, micro: int) -> TrainingCost:
        """The cost with gradients in pieces of `micro` pictures."""
        text = None if self.text is None else self.text.holding(micro * self.texts)
        return replace(self, image=self.image.holding(round(micro * self.image.items)), text=text)
