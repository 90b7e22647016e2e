"""Converts a source's picture to the JPEG of a shard.

Upright (EXIF), RGB, transparency flattened on white, the first frame, at most `max_side` pixels on the longer side.
A JPEG that already meets all of this keeps its own bytes. The header is checked before anything is decoded, so a
picture with too many pixels costs nothing.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from flame_core.data import svg
from flame_core.data.picture_bounds import PictureError, require_bounded
from flame_core.data.picture_formats import why_unreadable
from flame_core.data.picture_kinds import FORMATS
from flame_core.data.pixel_modes import eight_bits, on_white
from flame_core.params import IngestParams

_ORIENTATION = 0x0112
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ShardPicture:
    """A picture as stored in a shard. `jpeg` is None if the source's own bytes are stored unchanged."""

    rgb: Image.Image
    jpeg: bytes | None


def read_picture(content: bytes, params: IngestParams) -> ShardPicture:
    """Decode a picture, turn it upright and scale it down.

    Raises:
        PictureError: `image_empty`, `image_unreadable`, `image_unsupported`, `image_damaged`, `image_too_large`,
            `image_too_many_scans`, `image_too_much_metadata`, or one of `svg.SvgError`.
    """
    if not content:
        raise PictureError("image_empty", "zero bytes")
    if svg.is_svg(content):
        try:
            content = svg.render(content, params.max_side)
        except svg.SvgError as error:
            raise PictureError(error.reason, f"SVG: {error}") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings about metadata; what matters is checked here
        return decode_opened(open_picture(content, params.max_pixels), params)


def decode_opened(image: Image.Image, params: IngestParams) -> ShardPicture:
    """The same of a picture that is open already.

    Raises:
        PictureError: `image_damaged`.
    """
    with decoding(image):
        return _convert(image, params)


def open_picture(content: bytes, max_pixels: int) -> Image.Image:
    """A picture with only its header read, whose decoding is known to be bounded in time and memory.

    Raises:
        PictureError: as `read_picture`.
    """
    require_bounded(content)
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # max_pixels replaces it
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise PictureError(*why_unreadable(content)) from None
    except Exception as error:  # a valid signature followed by a broken header
        if "MAX_TEXT" in str(error):
            raise PictureError("image_too_much_metadata", f"PNG: {error}") from None
        raise PictureError("image_unreadable", f"its header is damaged: {error}") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    pixels = image.width * image.height
    size = f"{image.width} x {image.height} = {pixels:,} pixels"
    if tile := _tile_pixels(image):
        pixels, size = max(pixels, tile), f"{size} in tiles of {tile:,}"
    if pixels > max_pixels:
        raise PictureError("image_too_large", f"{size}, more than max_pixels ({max_pixels:,})")
    return image


def _tile_pixels(image: Image.Image) -> int:
    """The pixels of a TIFF's tile, which may be far larger than the picture and is decoded as a whole."""
    tags = getattr(image, "tag_v2", {})
    width, height = (tags.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    return int(np.max(width)) * int(np.max(height))


@contextmanager
def decoding(image: Image.Image) -> Iterator[None]:
    """Context for decoding an opened picture.

    Raises:
        PictureError: the decoder raised an error, whatever its kind.
    """
    try:
        yield
    except (MemoryError, PictureError):
        raise
    except Exception as error:  # Pillow's decoders raise many kinds of errors for a broken stream
        if "MAX_TEXT" in str(error):
            raise PictureError("image_too_much_metadata", f"{image.format}: {error}") from None
        raise PictureError("image_damaged", f"{image.format}: {error}") from None


def _convert(image: Image.Image, params: IngestParams) -> ShardPicture:
    size = image.size
    if image.format == "JPEG":
        image.draft(None, (2 * params.max_side, 2 * params.max_side))  # decodes a large picture at a lower resolution
    image.load()
    turn = _TURNS.get(_orientation(image))  # read after load(), in which Pillow already turns a TIFF
    as_is = image.format == "JPEG" and image.mode == "RGB" and max(size) <= params.max_side and turn is None
    rgb = on_white(_shrink(eight_bits(image), params.max_side))
    if turn is not None:
        rgb = rgb.transpose(turn)
    if as_is:
        return ShardPicture(rgb, None)
    rgb.info.clear()  # nothing of the source's metadata is written
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=params.jpeg_quality)
    return ShardPicture(rgb, buffer.getvalue())


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF counts as no EXIF
        return 1


def _shrink(image: Image.Image, side: int) -> Image.Image:
    longest = max(image.size)
    if longest <= side:
        return image
    size = (max(1, round(image.width * side / longest)), max(1, round(image.height * side / longest)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
