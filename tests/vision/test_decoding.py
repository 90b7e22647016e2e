"""torchvision decodes what PIL decodes, byte for byte; cutting differs by rounding and at edges only."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from flame_core.params import AugmentationParams, PhotometricParams
from flame_core.vision.decoding import cut, open_picture, open_with, size_of
from flame_core.vision.views import training_view, view_around


def photograph(width: int, height: int) -> Image.Image:
    """Smooth colours with some grain."""
    rng = np.random.default_rng(3)
    coarse = Image.fromarray(rng.integers(0, 255, (7, 9, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 5, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


def encoded(kind: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (93, 70), **options) -> bytes:
    buffer = io.BytesIO()
    photograph(*size).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(exif=exif)


CONTENTS = {
    "444": encoded(subsampling=0),
    "422": encoded(subsampling=1),
    "420": encoded(subsampling=2),
    "progressive": encoded(progressive=True, quality=60),
    "rgb": encoded(keep_rgb=True),
    "grey": encoded(mode="L"),
    "cmyk": encoded(mode="CMYK"),
    "orientation": turned(),
    "png": encoded("PNG"),
    "palette": encoded("PNG", "P"),
    "transparent": encoded("PNG", "RGBA"),
    "webp": encoded("WEBP"),
    "gif": encoded("GIF", "P"),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_both_decode_into_the_same_bytes(content):
    picture = open_with("torchvision", content)
    assert isinstance(picture, Tensor) and size_of(picture) == (93, 70)
    np.testing.assert_array_equal(picture.permute(1, 2, 0), np.asarray(open_picture(content)))


def test_without_torchvision_s_decoder_pil_gives_the_same_bytes(monkeypatch):
    expected = open_with("torchvision", encoded())
    monkeypatch.delattr("torchvision.io.decode_jpeg")
    found = open_with("torchvision", encoded())
    assert isinstance(found, Tensor) and isinstance(expected, Tensor) and torch.equal(found, expected)


def test_both_refuse_a_picture_that_was_cut_off():
    for decoder in ("pil", "torchvision"):
        with pytest.raises(OSError, match="truncated"):
            open_with(decoder, encoded()[:-2])


@pytest.mark.parametrize("size", [24, 70, 128])
def test_a_whole_picture_is_resized_like_pil(size):
    content = encoded()
    one, other = (cut(open_with(way, content), (0, 0, 93, 70), size) for way in ("torchvision", "pil"))  # pyright: ignore
    assert one.shape == other.shape == (size, size, 3) and one.dtype == other.dtype == torch.uint8
    apart = (one.int() - other.int()).abs()
    assert apart.max() <= 3 and apart.float().mean() < 0.1


def test_a_crop_is_like_pil_s_except_at_its_edges():
    content = encoded()
    box = (11, 5, 81, 61)
    one, other = (cut(open_with(way, content), box, 35).int() for way in ("torchvision", "pil"))  # pyright: ignore
    assert (one - other)[3:-3, 3:-3].abs().max() <= 3
    alone = open_picture(content).crop(box).resize((35, 35), Image.Resampling.BICUBIC)  # reads nothing outside the box
    assert (one - torch.from_numpy(np.array(alone)).int()).abs().max() <= 3


def test_views_are_cut_at_the_same_places_with_the_same_draws():
    params = AugmentationParams(scale=(0.3, 0.9), flip=0.5, photometric=PhotometricParams(hue=0, blur=0, solarise=0))
    content = encoded(quality=95)
    for seed in range(12):
        views = []
        for way in ("pil", "torchvision"):
            picture = open_with(way, content)  # pyright: ignore[reportArgumentType]
            draw = random.Random(seed)
            pair = [training_view(picture, 32, params, draw) for _ in range(2)]
            views.append((pair, view_around(picture, 32, pair), draw.random()))
        (one, around, left), (other, beside, right) = views
        assert [each.place for each in one] == [each.place for each in other] and left == right
        for a, b in zip(
            [*(each.pixels for each in one), around], [*(each.pixels for each in other), beside], strict=True
        ):
            assert (a.int() - b.int())[4:-4, 4:-4].abs().float().mean() < 1


def test_a_picture_of_one_pixel():
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1), (10, 200, 30)).save(buffer, "PNG")
    found = cut(open_with("torchvision", buffer.getvalue()), (0, 0, 1, 1), 4)
    assert found.reshape(-1, 3).unique(dim=0).tolist() == [[10, 200, 30]]
