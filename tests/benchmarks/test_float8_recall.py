"""How captions look for each other."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmarks.float8_recall import ranks_of


def test_each_caption_looks_for_each_other_one():
    first = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), dim=-1)
    second = first[[0, 2, 1]]  # pictures 1 and 2 have each other's caption
    assert ranks_of([first, second]).tolist() == [[0, 1, 1], [0, 1, 1]]
    assert ranks_of([first, first, first]).sum() == 0 and ranks_of([first, first, first]).shape == (6, 3)
