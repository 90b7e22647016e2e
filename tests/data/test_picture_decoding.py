from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from flame_core.data.picture_decoding import PictureError, read_picture
from flame_core.params import IngestParams
from tests.data.drawings import drawing, encoded, png

PARAMS = IngestParams(max_side=100, max_pixels=1_000_000)


def _stored(content: bytes, params: IngestParams = PARAMS) -> Image.Image:
    """The picture as a shard will hold it."""
    picture = read_picture(content, params)
    stored = Image.open(io.BytesIO(content if picture.jpeg is None else picture.jpeg))
    assert (stored.format, stored.mode, stored.size) == ("JPEG", "RGB", picture.rgb.size)
    return stored


def _near(picture: Image.Image, xy: tuple[int, int], colour: tuple[int, int, int], tolerance: int = 12) -> bool:
    found = picture.getpixel(xy)
    return all(abs(a - b) <= tolerance for a, b in zip(found, colour, strict=True))


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_a_fitting_jpeg_keeps_its_bytes():
    assert read_picture(encoded(drawing(1), "JPEG"), PARAMS).jpeg is None


def test_a_large_one_is_shrunk_and_keeps_its_shape():
    for kind in ("JPEG", "PNG"):
        assert _stored(encoded(drawing(1, (400, 200)), kind)).size == (100, 50)
    assert _stored(encoded(Image.new("RGB", (3, 900)))).size == (1, 100)


def test_shrinking_keeps_the_picture():
    expected = np.asarray(drawing(1, (400, 300)).resize((100, 75), Image.Resampling.LANCZOS), dtype=float)
    for kind in ("JPEG", "PNG"):
        found = np.asarray(_stored(encoded(drawing(1, (400, 300)), kind)), dtype=float)
        assert np.abs(found - expected).mean() < 4


def test_transparency_becomes_white():
    red = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    red.paste((0, 0, 255, 255), (0, 0, 20, 40))
    red.paste((0, 0, 0, 128), (0, 0, 20, 10))
    picture = _stored(encoded(red))
    assert _near(picture, (30, 20), (255, 255, 255))
    assert _near(picture, (10, 30), (0, 0, 255))
    assert _near(picture, (5, 4), (127, 127, 127))


def test_a_transparent_edge_is_not_darkened_by_shrinking():
    picture = Image.new("RGBA", (400, 400), (0, 0, 0, 0))
    picture.paste((255, 255, 255, 255), (100, 100, 300, 300))
    assert np.asarray(_stored(encoded(picture))).min() >= 250


def test_palettes():
    palette = drawing(1).quantize(8)
    assert _near(_stored(encoded(palette)), (1, 1), palette.convert("RGB").getpixel((1, 1)), 30)
    gif = Image.new("P", (20, 20), 0)
    gif.putpalette([255, 0, 0, 0, 0, 255])
    assert _near(_stored(encoded(gif, "GIF", transparency=0)), (10, 10), (255, 255, 255))
    assert _near(_stored(encoded(gif, "PNG")), (10, 10), (255, 0, 0))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_stored_upright(orientation, kind):
    source = Image.new("RGB", (64, 32), "white")
    source.paste((255, 0, 0), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = _stored(encoded(source, kind, exif=exif, quality=95))
    corner = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}[orientation]
    assert stored.size == ((64, 32) if orientation <= 4 else (32, 64))
    assert _near(stored, (corner[0] * (stored.width - 9) + 4, corner[1] * (stored.height - 9) + 4), (255, 0, 0), 40)
    assert stored.getexif().get(0x0112, 1) == 1


def test_cmyk_grey_and_sixteen_bits():
    assert _near(_stored(encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG")), (9, 9), (255, 0, 0), 30)
    assert _near(_stored(encoded(Image.new("L", (20, 20), 90), "JPEG")), (9, 9), (90, 90, 90))
    assert _near(_stored(encoded(Image.new("1", (20, 20), 1))), (9, 9), (255, 255, 255))
    sixteen = Image.fromarray(np.full((20, 20), 0x80FF, np.uint16))
    assert _near(_stored(encoded(sixteen)), (9, 9), (128, 128, 128))
    assert _near(_stored(encoded(Image.new("F", (20, 20), 0.5), "TIFF")), (9, 9), (128, 128, 128))


def test_the_first_frame_counts():
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "WEBP", "TIFF", "PNG", "AVIF"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert _near(_stored(content), (15, 15), (255, 0, 0), 20)


def test_a_tiff_that_a_scanner_turned_is_turned_once():
    """The tag in the TIFF's own directory, as scanners write it, with the picture's left edge on top."""
    upright = drawing(3, (96, 64))
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0112] = 6
    stored = _stored(encoded(upright.transpose(Image.Transpose.ROTATE_90), "TIFF", tiffinfo=tags))
    assert stored.size == (96, 64)
    assert np.abs(np.asarray(stored, float) - np.asarray(upright, float)).mean() < 8


def test_every_format_that_is_decoded():
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"):
        assert _near(_stored(encoded(Image.new("RGB", (40, 40), "blue"), kind)), (20, 20), (0, 0, 255), 20), kind


def test_svg():
    svg = (
        b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="20"><rect width="5" height="20" fill="red"/></svg>'
    )
    picture = _stored(svg)
    assert picture.size == (50, 100)
    assert _near(picture, (10, 50), (255, 0, 0), 20) and _near(picture, (40, 50), (255, 255, 255))


def test_nothing_of_the_metadata_is_written():
    exif = Image.Exif()
    exif[0x010E] = "secret"
    content = encoded(drawing(1, (300, 300)), "JPEG", exif=exif, comment=b"secret", icc_profile=b"secret" * 50)
    assert b"secret" in content
    assert b"secret" not in (read_picture(content, PARAMS).jpeg or b"secret")


@pytest.mark.parametrize(
    ("content", "reason", "detail"),
    [
        (b"", "image_empty", "zero"),
        (b"this is no picture", "image_unreadable", "known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "image_unsupported", "PostScript"),
        (encoded(drawing(1), "JPEG")[:900], "image_damaged", "truncated"),
        (png(1)[:300], "image_damaged", "PNG"),
        (png(1)[:20], "image_unreadable", ""),
        (_png_header(60_000, 60_000), "image_too_large", "3,600,000,000 pixels"),
        (_png_header(1001, 1000), "image_too_large", "more than max_pixels"),
        (_png_header(900, 900), "image_damaged", ""),
        (b"<svg", "image_unreadable", "not"),
        (b"<svg >", "image_unreadable", "SVG"),
        (encoded(drawing(1), "JPEG2000"), "image_unsupported", "JPEG 2000"),
    ],
)
def test_bad_pictures_have_a_reason(content, reason, detail):
    with pytest.raises(PictureError) as error:
        read_picture(content, PARAMS)
    assert error.value.reason == reason
    assert detail in error.value.detail


def test_a_bomb_is_not_decoded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(PictureError, match="image_too_large"):
        read_picture(_png_header(40_000, 40_000), PARAMS)


def test_the_pixel_limit_is_the_param_alone():
    assert Image.MAX_IMAGE_PIXELS is not None
    before = Image.MAX_IMAGE_PIXELS
    generous = IngestParams(max_pixels=10**12)
    with pytest.raises(PictureError, match="image_damaged"):  # decoded, and found to be short
        read_picture(_png_header(20_000, 10_000), generous)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_no_harm():
    content = encoded(drawing(1), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 20)
    assert _stored(content).size == drawing(1).size
