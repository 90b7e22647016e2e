"""The pictures that stand for a cluster, and the sheet of them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from flame_core.data.contact_sheet import sheet_of
from flame_core.pages.selections import Groups, nearest_samples
from tests.data.drawings import drawing, encoded


def test_clusters_are_shown_from_the_largest_by_the_samples_nearest_to_their_centroids():
    groups = np.array([2, 0, 0, 2, 2, 0, 2])
    cosines = np.array([0.1, 0.5, 0.9, 0.8, 0.8, 0.2, 0.3], np.float32)
    found = Groups(groups, cosines, np.bincount(groups, minlength=4), {})
    assert nearest_samples(found, 9, 2) == {2: [3, 4], 0: [2, 1]}
    assert list(nearest_samples(found, 1, 2)) == [2, 0]  # the largest and the smallest


def test_a_sheet_has_a_line_per_so_many_pictures():
    jpegs = [encoded(drawing(i), "JPEG") for i in range(5)]
    with Image.open(io.BytesIO(sheet_of(jpegs, 2))) as image:
        assert image.size == (192, 288)
        assert np.asarray(image.convert("RGB"))[200:, 100:].min() > 240  # the last place is white
