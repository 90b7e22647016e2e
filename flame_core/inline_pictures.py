"""Pictures embedded in a page as data URIs, so that the page fetches nothing."""

from __future__ import annotations

import base64
import io

from PIL import Image

THUMBNAIL = 160  # longer side in pixels
VIEW = 168  # side in pixels of the square that a model sees


def thumbnail(jpeg: bytes) -> str:
    """A small JPEG of a picture as a data URI."""
    with Image.open(io.BytesIO(jpeg)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return data_uri(small)


def data_uri(picture: Image.Image) -> str:
    """A picture as a JPEG in a data URI."""
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()


def square_view(jpeg: bytes) -> str:
    """The centre square of a picture as a data URI."""
    with Image.open(io.BytesIO(jpeg)) as opened:
        picture = opened.convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    box = (left, top, left + side, top + side)
    return data_uri(picture.resize((VIEW, VIEW), Image.Resampling.LANCZOS, box=box))
