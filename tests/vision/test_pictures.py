from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image

from flame_core.params import AugmentationParams
from flame_core.vision.views import MEAN, STD, crop_box, evaluation_picture, normalised, training_picture


def jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


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
    picture = training_picture(jpeg(pixels), 32, params, random.Random(1))
    assert picture.dtype == torch.uint8
    bright_left = bool((picture[:, 0] > picture[:, -1]).all())
    assert bright_left == (flip == 0.0)


def test_equal_draws_give_equal_pictures():
    pixels = np.random.default_rng(0).integers(0, 255, (50, 70, 3))
    pictures = [training_picture(jpeg(pixels), 24, AugmentationParams(), random.Random("a")) for _ in range(2)]
    assert torch.equal(*pictures)
    assert not torch.equal(pictures[0], training_picture(jpeg(pixels), 24, AugmentationParams(), random.Random("b")))
