"""The box around the views of a picture contains them, and shows what is there."""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image

from flame_core.params import AugmentationParams
from flame_core.vision.views import View, box_around, crop_box, training_view, view_around

PAPER = AugmentationParams(scale=(0.5, 1.0))


def test_it_contains_both_views_of_ten_thousand_draws():
    draw = random.Random(0)
    places = []
    for _ in range(10_000):
        width, height = draw.randint(40, 400), draw.randint(40, 400)
        two = [crop_box(width, height, PAPER, draw) for _ in range(2)]
        places.append([(x0 / width, y0 / height, x1 / width, y1 / height, 0.0) for x0, y0, x1, y1 in two])
    views = torch.tensor(places)
    around = box_around(views)[:, None]
    assert bool((around[..., :2] <= views[..., :2]).all()) and bool((around[..., 2:] >= views[..., 2:4]).all())
    assert bool((around >= 0).all()) and bool((around <= 1).all())
    assert bool((around[:, 0, :2] == views[..., :2].amin(dim=1)).all())  # and no larger than that


def test_it_shows_that_part_of_the_picture_unmirrored():
    ramp = np.zeros((60, 90, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(90)[None], np.arange(60)[:, None]
    picture = Image.fromarray(ramp)
    pixels = torch.zeros(1, 1, 3, dtype=torch.uint8)
    views = [
        View(pixels, (10 / 90, 5 / 60, 40 / 90, 50 / 60, 1.0)),
        View(pixels, (20 / 90, 0.0, 70 / 90, 30 / 60, 0.0)),
    ]
    seen = view_around(picture, 20, views).float()
    assert seen.shape == (20, 20, 3)
    assert abs(seen[:, 0, 0].mean() - 11) < 1.5 and abs(seen[:, -1, 0].mean() - 68) < 1.5  # from 10 to 70
    assert abs(seen[0, :, 1].mean() - 1) < 1.5 and abs(seen[-1, :, 1].mean() - 48) < 1.5  # from 0 to 50


def test_for_one_view_it_is_the_view():
    noise = np.random.default_rng(0).integers(0, 255, (50, 64, 3), np.uint8)
    picture = Image.fromarray(noise)
    for seed in range(20):
        view = training_view(picture, 16, PAPER, random.Random(seed))
        assert torch.equal(view_around(picture, 16, [view]), view.pixels)
