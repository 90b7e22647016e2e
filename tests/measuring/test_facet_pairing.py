"""The similarity of pictures with facets to texts with facets, against the mean of inner products written out."""

from __future__ import annotations

import numpy as np
import pytest

from flame_core.measuring.facet_pairing import meets_whole, picture_facet, picture_vectors, text_vectors


@pytest.mark.parametrize(("facets", "asked"), [(0, 1), (0, 3), (2, 3), (3, 3), (7, 3)])
def test_one_inner_product_is_the_mean_over_facets(facets, asked):
    rng = np.random.default_rng(facets + asked)
    views, t = rng.normal(size=(4, 1 + facets, 5)), rng.normal(size=(6, asked, 5))
    wanted = np.zeros((4, 6))
    for j in range(asked):
        z = views[:, j + 1] if j < facets else views[:, 0]
        wanted += z @ t[:, j].T / asked
        np.testing.assert_array_equal(picture_facet(views, j + 1), z)
    np.testing.assert_allclose(picture_vectors(views) @ text_vectors(t, facets).T, wanted, atol=1e-6)


def test_pictures_are_not_copied_and_a_mapped_file_stays_mapped(tmp_path):
    np.save(tmp_path / "views.npy", np.ones((3, 4, 5), np.float32))
    views = np.load(tmp_path / "views.npy", mmap_mode="r")
    assert np.shares_memory(picture_vectors(views), views)


def test_single_prompts_meet_the_whole_picture():
    assert [meets_whole(kind) for kind in ("raw", "short", "long", "long@reference")] == [True, False, False, True]
