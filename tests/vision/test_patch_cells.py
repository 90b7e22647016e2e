"""Whole cells, always the same number, and those that a rating of the box around the views says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from flame_core.vision.patch_cells import Cells
from flame_core.vision.token_subset import embedded
from flame_core.vision.views import box_around
from tests.vision.test_facet_tokens import pictures, tower

FOURTEEN = Cells(7, 7, 2)


def grid(rows: int, columns: int) -> SimpleNamespace:
    return SimpleNamespace(patch_embed=SimpleNamespace(grid_size=(rows, columns)))


@pytest.mark.parametrize(("share", "patches"), [(0.5, 100), (0.25, 52), (1.0, 196), (0.02, 4)])
def test_the_count_is_constant_and_that_of_the_paper(share, patches):
    ratings = torch.rand(3, 2, 49, generator=torch.Generator().manual_seed(0))
    assert FOURTEEN.best(ratings, FOURTEEN.kept(share)).shape == (3, 2, patches)


def test_what_is_kept_is_whole_cells_in_the_pictures_order():
    ratings = torch.rand(5, 49, generator=torch.Generator().manual_seed(1))
    for patches, rating in zip(FOURTEEN.best(ratings, 25), ratings, strict=True):
        assert patches.tolist() == sorted(set(patches.tolist()))
        cells = {(patch // 14 // 2) * 7 + patch % 14 // 2 for patch in patches.tolist()}
        assert cells == set(rating.topk(25).indices.tolist())
        assert patches.tolist() == [
            row * 14 + column for row in range(14) for column in range(14) if (row // 2) * 7 + column // 2 in cells
        ]


def test_of_equal_cells_the_first_are_kept():
    assert Cells(2, 3, 1).best(torch.tensor([1.0, 2.0, 1.0, 1.0, 2.0, 1.0]), 3).tolist() == [0, 1, 4]


def test_a_grid_of_other_proportions():
    cells = Cells.of(grid(4, 6), 2)
    assert len(cells) == 6
    assert cells.best(torch.arange(6.0), 1).tolist() == [16, 17, 22, 23]


def test_a_grid_that_is_not_made_of_whole_cells_is_refused():
    with pytest.raises(ValueError, match="7 x 7 patches are not made of whole cells of 2 x 2"):
        Cells.of(grid(7, 7), 2)


def test_a_view_takes_its_part_of_the_rating():
    """A map that is 1 inside a rectangle, seen by the whole box, by its parts, and by a mirrored view."""
    scores = torch.zeros(1, 14, 14)
    scores[0, 2:6, 8:14] = 1.0  # rows 1 and 2, columns 4 to 6 of the 7 x 7 cells
    views = torch.tensor([[[0.2, 0.2, 0.9, 0.9, 0.0], [0.2, 0.2, 0.9, 0.9, 1.0]]])
    whole, mirrored = FOURTEEN.ratings(scores, views)[0].view(2, 7, 7)
    inside = torch.zeros(7, 7)
    inside[1:3, 4:] = 1.0
    torch.testing.assert_close(whole, inside, atol=1e-5, rtol=0)
    torch.testing.assert_close(mirrored, inside.flip(1), atol=1e-5, rtol=0)
    kept = FOURTEEN.best(FOURTEEN.ratings(scores, views), 6)
    assert kept[0, 0].tolist() == [row * 14 + column for row in range(2, 6) for column in range(8, 14)]


def test_a_part_of_the_box_sees_the_same_place():
    """The right half and the lower half of the box: each point of a view has the score of its place in the box."""
    rows, columns = torch.meshgrid(torch.arange(28.0) + 0.5, torch.arange(28.0) + 0.5, indexing="ij")
    scores = (columns / 28 + 10 * rows / 28)[None]  # x + 10 y, linear, so bilinear sampling is exact
    views = torch.tensor([[[0.5, 0.0, 1.0, 1.0, 0.0], [0.0, 0.5, 1.0, 1.0, 0.0]]])
    right, lower = FOURTEEN.ratings(scores, views)[0].view(2, 7, 7)
    middle = (torch.arange(7) + 0.5) / 7
    inner = slice(1, 6)  # the outermost centres lie beyond the map's outermost centres and take their value
    torch.testing.assert_close(right[inner, inner], (0.5 + middle / 2 + 10 * middle[:, None])[inner, inner])
    torch.testing.assert_close(lower[inner, inner], (middle + 10 * (0.5 + middle[:, None] / 2))[inner, inner])


def test_pictures_have_their_own_ratings_at_any_resolution():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(4, 7, 7, generator=generator)
    corners = torch.rand(4, 2, 2, 2, generator=generator).sort(dim=-2).values  # [b, V, (low, high), (x, y)]
    views = torch.cat([corners.flatten(2), torch.zeros(4, 2, 1)], dim=-1)
    together = FOURTEEN.ratings(scores, views)
    assert together.shape == (4, 2, 49)
    for one in range(4):
        assert torch.equal(FOURTEEN.ratings(scores[one : one + 1], views[one : one + 1])[0], together[one])
    assert box_around(views).shape == (4, 4)


@torch.no_grad()
def test_kept_tokens_are_those_of_the_whole_picture_before_the_first_block():
    """Positions are added before patches are left out; with all cells, the tower's output is that without a mask."""
    made, cells = tower(None), Cells(2, 2, 2)
    kept = cells.best(torch.tensor([[0.0, 3.0, 1.0, 2.0]]).expand(3, 4), 2)
    assert kept[0].tolist() == [2, 3, 6, 7, 10, 11, 14, 15]
    whole, some = embedded(made.backbone, pictures()), embedded(made.backbone, pictures(), kept)
    assert torch.equal(some[:, 1:], whole[:, 1:][:, kept[0]]) and torch.equal(some[:, :1], whole[:, :1])
    everything = cells.best(torch.rand(3, 4), cells.kept(1.0))
    assert torch.equal(made(pictures(), ("z",), everything)["z"], made.z(pictures()))
