"""A batch is cut into pieces with all that belongs to its samples."""

from __future__ import annotations

import torch

from tests.objectives.terms import batch_of


def test_pieces_keep_their_rows_values_and_patches():
    batch = batch_of(torch.ones(5, 2)).with_extra(weight=torch.arange(5.0)).keeping(torch.arange(10).view(5, 1, 2))
    pieces = batch.split(2)
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    assert [piece.rows.tolist() for piece in pieces] == [[0, 1], [2, 3], [4]]
    assert [piece.keys for piece in pieces] == [["0", "1"], ["2", "3"], ["4"]]
    assert pieces[1].extra["weight"].tolist() == [2.0, 3.0]
    assert pieces[2].keep.tolist() == [[[8, 9]]]
    assert batch.to("cpu").keep is not None and batch_of(torch.ones(2, 2)).split(1)[0].keep is None


def test_what_is_made_of_parts_is_joined_in_order():
    batch = batch_of(torch.ones(5, 2))
    sizes = []

    def doubled(part):
        sizes.append(len(part))
        return part.rows * 2

    assert batch.in_parts(doubled, 2).tolist() == batch.in_parts(doubled, None).tolist() == [0, 2, 4, 6, 8]
    assert sizes == [2, 2, 1, 5]
