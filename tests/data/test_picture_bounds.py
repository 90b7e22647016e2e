"""Small files that ask a decoder for much work: each is read, or refused with its reason, in bounded time."""

from __future__ import annotations

import io
import struct
import time
import zlib

import pytest
from PIL import Image

from flame_core.data.picture_bounds import MAX_SCANS, PictureError, jpeg_scans
from flame_core.data.picture_decoding import read_picture
from flame_core.params import IngestParams
from tests.data.drawings import drawing, encoded

PARAMS = IngestParams(max_side=100)
SECONDS = 5.0  # far above what a refusal takes, far below what the attack would


def scans_of(size: tuple[int, int], count: int, **options) -> bytes:
    """A progressive JPEG whose last scan, of a few bytes, is repeated until there are `count`."""
    plain = encoded(Image.new("L", size, 128), "JPEG", progressive=True, **options)
    last = plain[plain.rindex(b"\xff\xda") : -2]
    return plain[:-2] + last * (count - plain.count(b"\xff\xda")) + plain[-2:]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(chunk: bytes, behind: bool = False) -> bytes:
    """A PNG with a chunk behind its header, or behind its pixels."""
    plain = encoded(drawing(1))
    at = len(plain) - 12 if behind else 33
    return plain[:at] + chunk + plain[at:]


def tiff(directories: int, tags: int, size: int) -> bytes:
    """A TIFF of so many directories, in which every tag claims the same `size` bytes."""
    out = b"II*\0" + struct.pack("<I", 8 + size) + bytes(size)
    for number in range(directories):
        entries = b"".join(struct.pack("<HHII", 40_000 + tag, 1, size, 8) for tag in range(tags))
        following = len(out) + 2 + len(entries) + 4
        out += struct.pack("<H", tags) + entries + struct.pack("<I", following if number < directories - 1 else 0)
    return out


def attempt(content: bytes) -> str:
    """The reason of a refusal, `read` without one; within `SECONDS`."""
    start = time.process_time()
    try:
        read_picture(content, PARAMS)
        found = "read"
    except PictureError as error:
        found = error.reason
    assert time.process_time() - start < SECONDS
    return found


def test_many_scans_are_refused_before_anything_is_decoded():
    bomb = scans_of((4000, 4000), 3000)
    assert len(bomb) < 600_000
    with pytest.raises(PictureError, match="image_too_many_scans: JPEG: 3,000 scans, more than 50"):
        read_picture(bomb, PARAMS)
    assert attempt(bomb) == "image_too_many_scans"


def test_as_many_scans_as_allowed_are_read():
    assert attempt(scans_of((400, 400), MAX_SCANS)) == "read"
    assert attempt(scans_of((400, 400), MAX_SCANS + 1)) == "image_too_many_scans"


def test_what_only_looks_like_scans_is_not_counted():
    """In a profile, and in a film behind the picture as phones append it."""
    plain = encoded(drawing(1), "JPEG", icc_profile=b"\xff\xda\0\x08" * 200, progressive=True)
    scans = encoded(drawing(1), "JPEG", progressive=True).count(b"\xff\xda")
    assert jpeg_scans(plain + b"\xff\xda\0\x08" * 200) == scans
    assert attempt(plain + b"\xff\xda\0\x08" * 200) == "read"


def test_scans_behind_restart_markers_and_fill_bytes_are_counted():
    plain = encoded(drawing(1), "JPEG", restart_marker_blocks=1, progressive=True)
    scans = plain.count(b"\xff\xda")
    bomb = plain.replace(b"\xff\xda", b"\xff\xff\xff\xda")[:-2]
    last = bomb[bomb.rindex(b"\xff\xff\xff\xda") :]
    assert jpeg_scans(bomb + last * 100 + b"\xff\xd9") == scans + 100


def test_blocks_of_exif_do_not_take_quadratic_time():
    plain = encoded(drawing(1), "JPEG")
    assert attempt(plain[:2] + b"\xff\xe1\0\x0cExif\0\0abcd" * 1_000_000 + plain[2:]) == "image_too_much_metadata"


@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind them"])
@pytest.mark.parametrize("count", [1, 100])
def test_packed_texts_of_a_png(behind, count):
    text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * (100_000_000 // count)))
    content = png_with(text * count, behind)
    assert len(content) < 300_000
    assert attempt(content) == "image_too_much_metadata"


def test_a_packed_profile_of_a_png():
    profile = png_chunk(b"iCCP", b"a\0\0" + zlib.compress(b"x" * 100_000_000))
    assert attempt(png_with(profile)) == "image_too_much_metadata"


def test_exif_whose_tags_all_claim_the_same_bytes():
    assert attempt(png_with(png_chunk(b"eXIf", tiff(1, 20_000, 100_000)))) == "read"


@pytest.mark.parametrize("size", [(1, 20_000, 100_000), (3000, 1, 1_000_000)], ids=["tags", "directories"])
def test_tiff_directories_that_claim_the_same_bytes(size):
    assert attempt(tiff(*size)) == "image_unreadable"


def test_a_tile_larger_than_the_picture():
    entries = {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 277: 1, 322: 60_000, 323: 60_000, 324: 200, 325: 100}
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    content = b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(1000)
    assert attempt(content) == "image_too_large"


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_many_frames_cost_no_more_than_the_first(kind):
    frames = [Image.new("RGB", (16, 16), (i % 256, i // 256, 0)) for i in range(300)]
    assert attempt(encoded(frames[0], kind, save_all=True, append_images=frames[1:])) == "read"


def test_a_gif_of_a_million_frames_and_comments():
    plain = encoded(Image.new("P", (8, 8)), "GIF")
    at = plain.index(b"\x2c", 13)
    assert attempt(plain[:at] + b"!\xfe\1a\0" * 300_000 + plain[at:-1] + plain[at:-1] * 300_000 + b";") == "read"


def test_comments_among_the_numbers_of_a_ppm():
    assert attempt(b"P3\n1000 1000\n255\n" + b"#a\n" * 3_000_000) == "image_too_much_metadata"
    assert attempt(b"P3\n# made by hand\n2 1\n255\n255 0 0 # red\n0 0 255\n") == "read"


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_many_pixels_are_refused_from_the_header(kind):
    content = encoded(Image.new("RGB", (2000, 2000)), kind)
    start = time.process_time()
    with pytest.raises(PictureError, match="image_too_large"):
        read_picture(content, IngestParams(max_pixels=3_999_999))
    assert time.process_time() - start < 1
    assert Image.open(io.BytesIO(content)).size == (2000, 2000)
