"""Collages: four pictures with a mask that is right at every pixel, so that perfect patches have PatchDis 1."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.collages import IGNORED, TILE, collage, draw, miou


def square(side: int, colour: str) -> bytes:
    """A coloured square in the middle of a white picture of 200 pixels."""
    picture, written = Image.new("RGB", (200, 200), "white"), io.BytesIO()
    at = (200 - side) // 2
    picture.paste(colour, (at, at, at + side, at + side))
    picture.save(written, "PNG")
    return written.getvalue()


def test_the_mask_is_what_is_not_white():
    found = collage([square(side, "navy") for side in (200, 100, 100, 50)], [3, 0, 2, 1])
    assert (found.mask[:TILE, :TILE] == 3).all()
    counts = {number: int((found.mask == number).sum()) for number in (0, 1, 2)}
    assert counts[0] == counts[2] == pytest.approx(48**2, rel=0.1) and counts[1] == pytest.approx(24**2, rel=0.2)
    assert found.mask[0, -1] == IGNORED and found.mask[TILE // 2, TILE + TILE // 2] == 0
    picture = np.asarray(Image.open(io.BytesIO(found.picture)))
    assert (picture[found.mask == 3] == (0, 0, 128)).all() and (picture[0, -1] == 255).all()


def test_perfect_patches_score_one_and_one_class_everywhere_a_sixteenth():
    found = [collage([square(100, "red")] * 4, four) for four in ([0, 1, 2, 3], [3, 2, 1, 0])]
    t = np.eye(4, dtype=np.float32)
    right = np.stack(
        [np.kron(t[np.reshape(four, (2, 2))], np.ones((2, 2, 1))) for four in ([0, 1, 2, 3], [3, 2, 1, 0])]
    )
    masks = [each.mask for each in found]
    assert miou(right, t, masks) == 1
    same = np.broadcast_to(t[1], right.shape)
    assert miou(same, t, masks) == pytest.approx(1 / 16)  # a quarter for that class, 0 for three


def test_the_four_are_of_different_classes_and_follow_from_the_seed():
    classes = {f"{name}{number}": name for name in "abcde" for number in range(3)}
    drawn = draw(classes, 20, seed=1)
    assert all(len({classes[key] for key in four}) == 4 for four in drawn)
    assert drawn == draw(classes, 20, seed=1) != draw(classes, 20, seed=2)
    with pytest.raises(SystemExit, match="have 2 classes"):
        draw({"x": "a", "y": "b"}, 1, 0)
