"""Neighbours by facet, on hand-made embeddings."""

from __future__ import annotations

import numpy as np

from flame_core.text.diagnostics import nearest


def test_every_facet_has_neighbours_of_its_own():
    angles = np.radians([[0, 0], [10, 90], [60, 20], [30, 180]])  # of row and facet
    t = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)
    rows, cosines = nearest(t, [0, 3])
    assert rows.tolist() == [[1, 2], [1, 1]]
    np.testing.assert_allclose(cosines, np.cos(np.radians([[10, 20], [20, 90]])), atol=1e-6)


def test_a_row_is_not_its_own_neighbour_even_where_texts_are_equal():
    t = np.tile(np.array([[1.0, 0.0]], np.float32), (3, 1, 1))
    rows, cosines = nearest(t, [0, 1, 2])
    assert all(found != row for row, found in enumerate(rows[:, 0]))
    np.testing.assert_allclose(cosines, 1.0)
