"""Every kind of pixels comes out as the eye should see it, or is refused by name."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from flame_core.data.picture_bounds import PictureError
from flame_core.data.picture_decoding import read_picture
from flame_core.data.pixel_modes import eight_bits
from flame_core.params import IngestParams
from tests.data.drawings import encoded

PARAMS = IngestParams(max_side=64)
RAMP = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)
MODES = "1 L P RGB RGBA CMYK YCbCr LAB HSV I F LA PA RGBX RGBa La I;16 I;16L I;16B I;16N"
KINDS = {"u": 1, "i": 2, "f": 3}  # of numbers, as a TIFF tells them


def tiff(values: np.ndarray, bits: int | None = None, white_is_zero: bool = False) -> bytes:
    """A grey TIFF of one strip, of values [8, 8] as they lie in memory."""
    data = values.tobytes()
    entries = {
        256: 8, 257: 8, 258: bits or values.itemsize * 8, 259: 1, 262: int(not white_is_zero),
        273: 8 + 2 + 10 * 12 + 4, 277: 1, 278: 8, 279: len(data), 339: KINDS[values.dtype.kind],
    }  # fmt: skip
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + data


def grey(content: bytes) -> np.ndarray:
    """The picture before it becomes a JPEG, [8, 8]."""
    return np.asarray(read_picture(content, PARAMS).rgb.convert("L"))


@pytest.mark.parametrize("mode", MODES.split())
def test_every_mode_of_pillow_has_a_way(mode):
    assert eight_bits(Image.new(mode, (8, 8))).mode in ("RGB", "RGBA")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RAMP.astype("<i4"), RAMP),
        (RAMP.astype("<u4"), RAMP),
        (RAMP.astype("<i2"), RAMP),
        (RAMP.astype("<i4") * 257, RAMP),
        (RAMP.astype("<u2") * 257, RAMP),
        (RAMP.astype("<u2"), np.zeros((8, 8))),  # sixteen bits have a range: this is as dark as it says
        ((RAMP / 255).astype("<f4"), RAMP),
        ((RAMP / 255 * 1.002 - 0.001).astype("<f4"), RAMP),  # resampled
        (RAMP.astype("<f4"), RAMP),
        ((RAMP * 257.0).astype("<f4"), RAMP),
        (np.where(RAMP > 200, np.inf, RAMP / 255).astype("<f4"), np.where(RAMP > 200, 255, RAMP)),
        (np.where(RAMP > 200, np.nan, RAMP / 255).astype("<f4"), np.where(RAMP > 200, 0, RAMP)),
    ],
    ids=lambda value: str(value.dtype) if value.dtype.kind else "",
)
def test_grey_tiffs_of_more_than_eight_bits(values, expected):
    assert np.abs(grey(tiff(values)).astype(int) - expected).max() <= 1


def test_twelve_bits():
    packed = np.full(96, 0xFF, np.uint8).reshape(8, 12)
    assert grey(tiff(packed, bits=12)).min() == 255


@pytest.mark.parametrize("values", [RAMP.astype("<u2") * 257, (RAMP / 255).astype("<f4")], ids=["16", "float"])
def test_white_may_be_zero(values):
    assert np.abs(grey(tiff(values, white_is_zero=True)).astype(int) - (255 - RAMP)).max() <= 1


@pytest.mark.parametrize(
    "values",
    [
        RAMP.astype("<i4") * 1000,
        RAMP.astype("<i4") - 20,
        (RAMP * 1e6).astype("<f4"),
        (RAMP / 127.5 - 1).astype("<f4"),
        np.full((8, 8), 2**32 - 1, "<u4"),
    ],
)
def test_values_without_a_known_range_are_refused_by_name(values):
    with pytest.raises(PictureError, match=r"image_unsupported: its pixels are (integers|floats)"):
        read_picture(tiff(values), PARAMS)


def test_a_tiff_that_pillow_cannot_read_is_called_unsupported():
    with pytest.raises(PictureError, match="image_unsupported: a TIFF whose pixels"):
        read_picture(tiff(RAMP.astype("<f8")), PARAMS)


def test_a_dark_picture_of_a_known_range_stays_dark():
    assert grey(b"P5\n8 8\n65535\n" + RAMP.astype(">u2").tobytes()).max() == 0


def test_transparent_grey_with_premultiplied_alpha_is_flattened():
    half = Image.fromarray(np.full((8, 8, 2), 128, np.uint8), "La")
    picture = read_picture(encoded(half.convert("LA"), "PNG"), PARAMS).rgb
    assert abs(picture.getpixel((4, 4))[0] - np.asarray(eight_bits(half))[4, 4, 0] * 0.5 - 127) <= 2
