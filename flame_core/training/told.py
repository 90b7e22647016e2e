"""What a step tells: its losses, the objective's values, and whether any rank was told to stop or wants to save.

A GPU is given work ahead of time: if Python read the loss of a step before it asks for the next one, the GPU would wait
for Python in every step. So these numbers are copied to the host when they are there, and read a step later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flame_core.objectives.batch import Moment
from flame_core.processes.ranks import Ranks


@dataclass(frozen=True)
class Read:
    """The numbers of a step, on the host.

    Attributes:
        losses: the sum of all ranks' shares by name.
        scalars: the objective's values by name.
        stop, save: whether any rank was told to stop, or wants to save, in which case all do.
    """

    losses: dict[str, float]
    scalars: dict[str, float]
    stop: bool
    save: bool

    @property
    def loss(self) -> float:
        return sum(self.losses.values())


class Told:
    """The numbers of a step, on their way to the host; every rank makes one after each step.

    Attributes:
        at: the step.
        rate: its learning rate.
        keys: the samples of this rank.
    """

    def __init__(
        self,
        at: Moment,
        rate: float,
        keys: Sequence[str],
        shares: Mapping[str, Tensor],
        scalars: Mapping[str, float | Tensor],
        ranks: Ranks,
        *,
        stop: bool,
        save: bool,
    ) -> None:
        """Start the copy of this rank's shares of the loss (scalars), of values and flags."""
        self.at, self.rate, self.keys = at, rate, keys
        self._losses, self._scalars = list(shares), list(scalars)
        own = torch.stack([share.double() for share in shares.values()])
        told = torch.cat([own, *(own.new_full((1,), float(flag)) for flag in (stop, save))])
        ranks.sum_(told)
        values = [value if isinstance(value, Tensor) else own.new_full((), value) for value in scalars.values()]
        told = torch.cat([told, *(value.double().reshape(1) for value in values)])
        self._told = told.to("cpu", non_blocking=True)
        self._arrived = torch.cuda.Event() if told.is_cuda else None
        if self._arrived is not None:
            self._arrived.record()

    def read(self) -> Read:
        """The numbers, once they are here."""
        if self._arrived is not None:
            self._arrived.synchronize()
        told = self._told.tolist()
        count = len(self._losses)
        losses, (stop, save), scalars = told[:count], told[count : count + 2], told[count + 2 :]
        return Read(
            dict(zip(self._losses, losses, strict=True)),
            dict(zip(self._scalars, scalars, strict=True)),
            stop > 0,
            save > 0,
        )
