from __future__ import annotations

import imagehash
import numpy as np
import pytest
from PIL import Image

from flame_core.data.perceptual import COLOURS, colour_miniature, perceptual_hash
from tests.data.drawings import drawing


def _distance(one: Image.Image, other: Image.Image) -> int:
    return (perceptual_hash(one) ^ perceptual_hash(other)).bit_count()


@pytest.mark.parametrize("seed", range(8))
def test_the_hash_is_that_of_imagehash(seed):
    picture = drawing(seed, (120 + seed, 90))
    expected = np.packbits(imagehash.phash(picture).hash.ravel()).tobytes()
    assert perceptual_hash(picture) == int.from_bytes(expected, "big")


def test_a_smaller_copy_is_near_and_another_picture_far():
    picture = drawing(1, (200, 160))
    assert _distance(picture, picture.resize((100, 80), Image.Resampling.BICUBIC)) <= 6
    assert _distance(picture, drawing(2, (200, 160))) > 12


def test_a_flat_picture_has_no_noise_for_a_hash():
    hashes = {perceptual_hash(Image.new("RGB", (64, 64), (level, level, level))) for level in (1, 77, 200, 254)}
    assert len(hashes) == 1


def test_the_miniature_holds_the_mean_colours():
    picture = Image.new("RGB", (16, 16), "white")
    picture.paste((200, 0, 100), (0, 0, 2, 1))  # half of the first field
    miniature = colour_miniature(picture)
    assert miniature.shape == (COLOURS,)
    assert miniature[:3] == pytest.approx([(200 + 255) / 2, 255 / 2, (100 + 255) / 2], abs=1)
    assert (miniature[3:] == 255).all()
