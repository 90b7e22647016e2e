"""Changes of colours: each by itself, and all by the generator only."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from flame_core.params import AugmentationParams, PhotometricParams
from flame_core.vision.colours import recoloured, turned
from flame_core.vision.views import training_view

NONE = {"jitter": 0.0, "grey": 0.0, "blur": 0.0, "solarise": 0.0}


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))


def pixels(**changes: float) -> np.ndarray:
    return np.array(recoloured(picture(), PhotometricParams(**NONE | changes), random.Random(0))).astype(int)


def test_nothing_is_changed_without_probabilities():
    assert np.array_equal(pixels(), np.array(picture()))


def test_grey_has_three_equal_channels():
    grey = pixels(grey=1.0)
    assert (grey.min(axis=2) == grey.max(axis=2)).all() and grey.std() > 1


def test_solarised_are_the_bright_values():
    before = np.array(picture()).astype(int)
    assert np.array_equal(pixels(solarise=1.0), np.where(before < 128, before, 255 - before))


def test_blurred_is_smoother_with_the_same_mean():
    assert pixels(blur=1.0).std() < 0.9 * pixels().std()
    assert abs(pixels(blur=1.0).mean() - pixels().mean()) < 2


@pytest.mark.parametrize("only", ["brightness", "contrast", "saturation", "hue"])
def test_the_jitter_changes_each_of_four(only):
    none = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    assert np.abs(pixels(jitter=1.0, **none) - pixels()).max() <= 8  # HSV in bytes rounds
    params = PhotometricParams(**NONE | none | {"jitter": 1.0, only: 0.5})
    changed = [np.array(recoloured(picture(), params, random.Random(seed))).astype(int) for seed in range(5)]
    assert max(np.abs(each - pixels()).max() for each in changed) > 40


def test_hues_are_turned_round():
    red = Image.new("RGB", (1, 1), (200, 0, 0))
    r, g, b = turned(red, 1 / 3).getpixel((0, 0))
    assert g > 190 and r < 10 and b < 10
    assert turned(turned(red, 0.3), -0.3).getpixel((0, 0))[0] > 190


def test_they_depend_only_on_the_generator():
    params = AugmentationParams(photometric=PhotometricParams())
    one, again, other = (training_view(picture(), 16, params, random.Random(seed)) for seed in (3, 3, 4))
    assert one.pixels.equal(again.pixels) and not one.pixels.equal(other.pixels)


def test_without_them_the_draws_are_as_before():
    draw = random.Random(0)
    training_view(picture(), 16, AugmentationParams(), draw)
    plain = random.Random(0)
    training_view(picture(), 16, AugmentationParams(photometric=None), plain)
    assert draw.random() == plain.random()
