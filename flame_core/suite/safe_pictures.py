"""Makes a benchmark's pictures safe for every model, also for those of other people.

A picture that is damaged, of an unknown format, too large or a decompression bomb is refused by name before a model
sees it. The models' own `convert("RGB")` would clip pixels of 16 bits or floats to white or black, and show what lies
below transparency, which is mostly black: such pictures are mapped and put on white, as in ingest. All others stay as
they are, since the papers' protocols open the file's own bytes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from flame_core.data.picture_bounds import PictureError
from flame_core.data.picture_decoding import decoding, open_picture
from flame_core.data.pixel_modes import eight_bits, is_transparent, needs_mapping, on_white
from flame_core.errors import InputError
from flame_core.suite.content import Picture

MAX_PIXELS = 178_956_970  # Pillow's default limit


def opened(content: bytes, what: str) -> Image.Image:
    """A picture, decoded.

    Raises:
        InputError: it cannot be decoded, or not in bounded time; names it by `what` and says why.
    """
    with _refused(what):
        image = open_picture(content, MAX_PIXELS)
        with decoding(image):
            image.load()
        return image


def decodable(picture: Picture) -> bytes:
    """The bytes of a picture for a model; if its pixels are opaque and have eight bits, only its header is read.

    Raises:
        InputError: it cannot be read, or its header says that it cannot be decoded; names it.
    """
    content = picture.read()
    with _refused(f"{picture.path}: {picture.name}"):
        image = open_picture(content, MAX_PIXELS)
        if not needs_mapping(image) and not is_transparent(image):
            return content
        buffer = io.BytesIO()
        with decoding(image):
            on_white(eight_bits(image)).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


@contextmanager
def _refused(what: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings about metadata
            yield
    except PictureError as error:
        raise InputError(f"{what} cannot be decoded ({error}); remove it") from None
