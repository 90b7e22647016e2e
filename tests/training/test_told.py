"""What a step tells, alone and summed over ranks."""

from __future__ import annotations

import torch

from flame_core.objectives.batch import Moment
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.training.told import Read, Told
from tests.training.processes import on_ranks


def told(ranks: Ranks, *, stop: bool = False, save: bool = False) -> Told:
    own = float(ranks.rank)
    shares = {"a": torch.tensor(0.1 + own), "b": torch.tensor(2.0)}
    scalars = {"scale": torch.tensor(14.285714), "omega": 0.1}
    return Told(Moment(3, 9, 3), 0.5, ["k"], shares, scalars, ranks, stop=stop, save=save)


def test_numbers_come_as_they_went():
    read = told(ALONE, save=True).read()
    assert read.losses == {"a": torch.tensor(0.1).item(), "b": 2.0} and read.loss == sum(read.losses.values())
    assert read.scalars == {"scale": torch.tensor(14.285714).item(), "omega": 0.1}
    assert (read.stop, read.save) == (False, True)


def of_two(ranks: Ranks) -> Read:
    return told(ranks, stop=ranks.rank == 1).read()


def test_losses_and_flags_are_summed_over_ranks_and_values_are_not(tmp_path):
    first, read = on_ranks(2, of_two, tmp_path)
    assert first == read
    assert read.losses == {"a": torch.tensor(0.1).item() + torch.tensor(1.1).item(), "b": 4.0}
    assert read.scalars["omega"] == 0.1 and (read.stop, read.save) == (True, False)
