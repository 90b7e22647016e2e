"""The header as PIL reads it, of JPEGs of many kinds; anything else has no frame."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from flame_core.vision.jpeg_header import jpeg_frame


def encoded(mode: str = "RGB", kind: str = "JPEG", **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (37, 51, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("subsampling", "sampling"), [(0, ((1, 1),) * 3), (1, ((2, 1), (1, 1), (1, 1))), (2, ((2, 2), (1, 1), (1, 1)))]
)
@pytest.mark.parametrize("progressive", [False, True])
def test_an_ordinary_jpeg(subsampling, sampling, progressive):
    frame = jpeg_frame(encoded(subsampling=subsampling, progressive=progressive, exif=b"Exif\0\0" + bytes(70)))
    assert frame is not None and frame.ordinary
    assert (frame.process, frame.bits, frame.width, frame.height) == (0xC2 if progressive else 0xC0, 8, 51, 37)
    assert frame.sampling == sampling and frame.adobe is None


def test_other_numbers_of_components_are_not_ordinary():
    grey, four = jpeg_frame(encoded("L")), jpeg_frame(encoded("CMYK"))
    assert grey is not None and len(grey.sampling) == 1 and not grey.ordinary
    assert four is not None and len(four.sampling) == 4 and not four.ordinary and four.adobe is not None


def test_fill_bytes_and_other_processes():
    plain = encoded()
    assert jpeg_frame(plain[:2] + b"\xff\xff\xff" + plain[2:]) == jpeg_frame(plain)
    arithmetic = jpeg_frame(plain.replace(b"\xff\xc0\x00\x11", b"\xff\xc9\x00\x11"))
    assert arithmetic is not None and arithmetic.process == 0xC9 and not arithmetic.ordinary
    twelve = jpeg_frame(plain.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c"))
    assert twelve is not None and twelve.bits == 12 and not twelve.ordinary


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9\0\0", encoded(kind="PNG"), encoded(kind="WEBP"), encoded()[:160]],
    ids=["empty", "start", "end", "png", "webp", "cut"],
)
def test_no_frame(content):
    assert jpeg_frame(content) is None


def test_every_cut_of_a_header_is_survived():
    content = encoded()
    for end in range(700):
        jpeg_frame(content[:end])
