"""The GPU's way of cutting against PIL's, on a CPU; which pictures nvJPEG gets; an error where there is no GPU."""

from __future__ import annotations

import random

import pytest
import torch

from flame_core.errors import ParamsError
from flame_core.params import AugmentationParams, TrainParams
from flame_core.vision.decoding import cut, open_with
from flame_core.vision.nvjpeg import EncodedPictures, _groups, cut_in_groups, picture_size, reads, require_gpu
from flame_core.vision.views import Place, training_view, uncut_view
from tests.vision.test_decoding import CONTENTS, encoded


def on_pixels(place: Place, width: int, height: int) -> Place:
    """The nearest place whose edges lie between pixels."""
    left, top, right, bottom, mirrored = place
    left, right = round(left * width) / width, round(right * width) / width
    return left, round(top * height) / height, right, round(bottom * height) / height, mirrored


@pytest.mark.parametrize("size", [24, 35, 128])
def test_views_are_pil_s(size):
    """Of pictures of several sizes at once, downwards and upwards, mirrored or not."""
    contents = [encoded(), encoded("PNG"), encoded(size=(40, 61)), encoded(quality=50)] * 20  # more than one group
    places = [(0, 0, 1, 1, 0.0), (0.25, 0.1, 0.75, 0.8, 1.0)]
    boxes = [[on_pixels(place, *picture_size(content)) for place in places] for content in contents]
    pictures = EncodedPictures.of(contents).decode("cpu")
    views = cut_in_groups(pictures, torch.tensor(boxes), size)
    assert views.shape == (80, 2, size, size, 3) and views.dtype == torch.uint8
    for content, found, place in zip(contents, views, boxes, strict=True):
        width, height = picture_size(content)
        for view, (left, top, right, bottom, mirrored) in zip(found, place, strict=True):
            box = tuple(map(round, (left * width, top * height, right * width, bottom * height)))
            expected = cut(open_with("pil", content), box, size)  # pyright: ignore[reportArgumentType]
            apart = (view.int() - (expected.flip(1) if mirrored else expected).int()).abs()
            assert apart.max() <= 1 and apart.float().mean() < (
                0.02 if width > height else 0.3
            )  # PIL resizes heights first


def test_the_canvas_of_large_pictures_is_bounded():
    assert _groups([(100, 100)] * 130) == [slice(0, 64), slice(64, 128), slice(128, 130)]
    found = _groups([(100, 100), (4096, 4096), (4096, 4096), (8192, 64), (9000, 9000), (10, 10), (10, 10)])
    assert found == [slice(0, 3), slice(3, 4), slice(4, 5), slice(5, 7)]
    assert _groups([]) == [slice(0, 0)]


def test_nvjpeg_gets_what_it_reads_alike():
    assert [name for name, content in CONTENTS.items() if reads(content)] == [
        "444", "422", "420", "progressive", "orientation"
    ]  # fmt: skip


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_the_size_is_known_without_decoding(content):
    assert picture_size(content) == (93, 70)


def test_draws_are_those_of_the_other_decoders():
    params = AugmentationParams(scale=(0.3, 0.9), flip=0.5)
    picture = open_with("pil", encoded())
    for seed in range(8):
        one, other = random.Random(seed), random.Random(seed)
        assert uncut_view(93, 70, params, one).place == training_view(picture, 8, params, other).place
        assert one.random() == other.random()


def test_without_a_gpu_it_says_what_to_set():
    require_gpu("torchvision", "cpu")
    require_gpu("nvjpeg", "cuda")
    with pytest.raises(ParamsError, match=r"train\.decoder nvjpeg .* set train\.decoder to torchvision"):
        require_gpu("nvjpeg", "cpu")


def test_it_changes_no_colours():
    with pytest.raises(ValueError, match=r"augmentation\.photometric"):
        TrainParams.model_validate({"decoder": "nvjpeg", "augmentation": {"photometric": {}}})
