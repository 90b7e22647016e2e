"""Boxes are blurred, and nothing else; a box that is not understood drops its pair."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from flame_core.data.blurring import blurred, boxes_of
from flame_core.data.picture_bounds import PictureError
from flame_core.data.picture_decoding import ShardPicture
from flame_core.params import BlurParams

RULE = BlurParams(column="f")


def test_only_the_boxes_change():
    noise = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    picture = ShardPicture(Image.fromarray(noise), b"own bytes")
    assert blurred(picture, [], 95) is picture
    found = blurred(picture, [(0.2, 0.25, 0.4, 0.5), (0.9, 0.9, 1.2, 1.1), (1.2, 0.1, 1.3, 0.2)], 95)
    pixels = np.asarray(found.rgb).astype(int)
    assert pixels[20:40, 20:40].std() < noise[20:40, 20:40].std() / 4  # contrast is gone
    assert pixels[75:80, 95:100].std() < noise[75:80, 95:100].std() / 2
    outside = np.ones((80, 100), bool)
    outside[17:43, 17:43] = outside[69:, 86:] = False  # with a tenth on each side
    assert (pixels[outside] == noise[outside]).all()
    assert found.jpeg is not None and Image.open(io.BytesIO(found.jpeg)).size == (100, 80)


@pytest.mark.parametrize("value", [[[0.1, 0.2, 0.3, 0.4]], "[[0.1, 0.2, 0.3, 0.4]]"])
def test_boxes(value):
    assert boxes_of({"f": value}, RULE) == [(0.1, 0.2, 0.3, 0.4)]
    assert boxes_of({"f": []}, RULE) == boxes_of({}, RULE) == boxes_of({"f": " "}, RULE) == []
    with pytest.raises(PictureError, match="nothing in the column 'f'"):
        boxes_of({}, BlurParams(column="f", missing="drop"))


@pytest.mark.parametrize(
    "value",
    [
        *("x", "3", [1], [[1, 2]], [[0.3, 0, 0.1, 1]], [[10, 20, 60, 90]], [[0, 0, "nan", 1]]),
        *([[0, 0, 10**400, 1]], "[" * 100_000),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_box_is_refused(value):
    with pytest.raises(PictureError) as caught:
        boxes_of({"f": value}, RULE)
    assert caught.value.reason == "blur_boxes"
