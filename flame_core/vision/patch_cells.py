"""Which patches of a view are seen: whole cells of c x c patches, always the same number, so that batches stay dense.

A picture is rated once, on a box that contains all its views; every view takes its part of that rating.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from flame_core.vision.views import box_around


@dataclass(frozen=True)
class Cells:
    """The cells of a grid of patches: `down` x `across` cells of `side` x `side` patches, numbered row by row."""

    down: int
    across: int
    side: int

    @classmethod
    def of(cls, backbone: Any, side: int) -> Cells:
        """The cells of a ViT's patches.

        Raises:
            ValueError: the grid is not made of whole cells.
        """
        down, across = backbone.patch_embed.grid_size
        if down % side or across % side:
            raise ValueError(f"{down} x {across} patches are not made of whole cells of {side} x {side}")
        return cls(down // side, across // side, side)

    def __len__(self) -> int:
        return self.down * self.across

    def kept(self, share: float) -> int:
        """How many cells are seen: floor(share * cells) + 1 as in A-CLIP's code, so 25 of 49 for 0.5; at most all."""
        return min(int(len(self) * share) + 1, len(self))

    def ratings(self, scores: Tensor, views: Tensor) -> Tensor:
        """The mean score of each cell of each view, [b, V, cells].

        Args:
            scores: [b, h, w] of the patches of the smallest box that contains all views, not mirrored; any grid.
            views: [b, V, 5], the views' boxes as in `Batch.boxes`.
        """
        rows, columns = self.down * self.side, self.across * self.side
        left, top, width, height = _within(box_around(views)[:, None], views)  # [b, V] each, in box widths and heights
        x = (torch.arange(columns, device=views.device) + 0.5) / columns
        y = (torch.arange(rows, device=views.device) + 0.5) / rows
        x = torch.where(views[..., 4:] > 0, 1 - x, x)  # [b, V, columns], mirrored back
        x = (left[..., None] + x * width[..., None])[..., None, :].expand(-1, -1, rows, -1)
        y = (top[..., None] + y * height[..., None])[..., None].expand(-1, -1, -1, columns)
        places = 2 * torch.stack([x, y], dim=-1) - 1  # [b, V, rows, columns, 2]; -1 and 1 are the box's edges
        found = F.grid_sample(
            scores[:, None], places.flatten(1, 2), mode="bilinear", padding_mode="border", align_corners=False
        )  # [b, 1, V rows, columns]
        found = found.unflatten(2, (-1, self.down, self.side)).unflatten(5, (self.across, self.side))
        return found[:, 0].mean(dim=(3, 5)).flatten(2)  # of [b, V, down, side, across, side]

    def best(self, ratings: Tensor, count: int) -> Tensor:
        """The patches of the `count` best cells, [..., count side^2], ascending; of equal cells the first."""
        cells = ratings.argsort(dim=-1, descending=True, stable=True)[..., :count]
        row, column = cells // self.across, cells % self.across
        own = torch.arange(self.side, device=cells.device)
        down = (row[..., None] * self.side + own)[..., :, None]  # [..., count, side, 1]
        across = (column[..., None] * self.side + own)[..., None, :]
        return (down * (self.across * self.side) + across).flatten(-3).sort(dim=-1).values


def _within(around: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Left, top, width and height of boxes [..., 4 or more] as shares of the boxes around them."""
    left, top, right, bottom = around[..., :4].unbind(dim=-1)
    width, height = right - left, bottom - top
    own = boxes[..., :4].unbind(dim=-1)
    return (own[0] - left) / width, (own[1] - top) / height, (own[2] - own[0]) / width, (own[3] - own[1]) / height
