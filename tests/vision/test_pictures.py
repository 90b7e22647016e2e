from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image

from flame_core.params import AugmentationParams
from flame_core.vision.decoding import open_picture
from flame_core.vision.views import MEAN, STD, View, crop_box, evaluation_picture, normalised, training_view


def jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def view(pixels: np.ndarray, size: int, params: AugmentationParams, seed: object) -> View:
    return training_view(open_picture(jpeg(pixels)), size, params, random.Random(seed))  # pyright: ignore[reportArgumentType]


def test_crops_lie_inside_and_have_the_drawn_area_and_ratio():
    params = AugmentationParams(scale=(0.5, 0.8), ratio=(0.8, 1.25))
    for seed in range(300):
        left, top, right, bottom = crop_box(200, 150, params, random.Random(seed))
        assert 0 <= left < right <= 200
        assert 0 <= top < bottom <= 150
        area, ratio = (right - left) * (bottom - top) / (200 * 150), (right - left) / (bottom - top)
        assert 0.49 < area < 0.81
        assert 0.79 < ratio < 1.27


def test_an_impossible_ratio_falls_back_to_the_centre():
    box = crop_box(1000, 10, AugmentationParams(scale=(0.9, 1.0)), random.Random(0))
    assert box == (493, 0, 506, 10)


def test_evaluation_takes_the_centre_square_and_normalises():
    pixels = np.zeros((40, 80, 3))
    pixels[:, 20:60] = (255, 128, 0)
    picture = normalised(evaluation_picture(jpeg(pixels), 16)[None])[0]
    expected = (torch.tensor([255, 128, 0])[:, None, None] / 255 - MEAN) / STD
    assert picture.shape == (3, 16, 16)
    torch.testing.assert_close(picture[:, 4:12, 4:12], expected.expand(3, 8, 8), atol=1e-5, rtol=0)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_flip_mirrors_left_and_right(flip):
    pixels = np.zeros((32, 32, 3))
    pixels[:, :16] = 255
    params = AugmentationParams(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=flip)
    picture, place = view(pixels, 32, params, 1)
    assert picture.dtype == torch.uint8
    bright_left = bool((picture[:, 0] > picture[:, -1]).all())
    assert bright_left == (flip == 0.0)
    assert place == (0.0, 0.0, 1.0, 1.0, flip)


def test_a_view_knows_where_it_was_cut():
    """The same crop by PIL, from the fractions only."""
    pixels = np.random.default_rng(1).integers(0, 255, (50, 70, 3))
    params = AugmentationParams(scale=(0.2, 0.5), flip=0.5)
    mirrored = set()
    for seed in range(20):
        found = view(pixels, 24, params, seed)
        left, top, right, bottom, mirror = found.place
        box = (left * 70, top * 50, right * 70, bottom * 50)
        cut = np.array(open_picture(jpeg(pixels)).resize((24, 24), Image.Resampling.BICUBIC, box=box))
        np.testing.assert_array_equal(found.pixels.numpy(), cut[:, ::-1] if mirror else cut)
        mirrored.add(mirror)
    assert mirrored == {0.0, 1.0}


def test_equal_draws_give_equal_pictures():
    pixels = np.random.default_rng(0).integers(0, 255, (50, 70, 3))
    a, b, other = (view(pixels, 24, AugmentationParams(), seed).pixels for seed in "aab")
    assert torch.equal(a, b)
    assert not torch.equal(a, other)
