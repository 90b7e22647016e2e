"""Pictures embedded in a page as data URIs, so that the page fetches nothing."""

from __future__ import annotations

import base64
import io
import re

from PIL import Image

THUMBNAIL = 160  # longer side in pixels
VIEW = 168  # side in pixels of the square that a model sees
DATA_URI = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+")  # as `data_uri` writes them


def thumbnail(jpeg: bytes) -> str:
    """A small JPEG of a picture as a data URI."""
    return data_uri(smaller(jpeg, THUMBNAIL))


def data_uri(picture: Image.Image) -> str:
    """A picture as a JPEG in a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(as_jpeg(picture)).decode()


def as_jpeg(picture: Image.Image) -> bytes:
    """A picture as a JPEG to look at."""
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=82)
    return encoded.getvalue()


def smaller(jpeg: bytes, side: int) -> Image.Image:
    """A picture whose longer side has at most so many pixels."""
    with Image.open(io.BytesIO(jpeg)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def square_view(jpeg: bytes) -> str:
    """The centre square of a picture as a data URI."""
    return data_uri(centre_square(jpeg, VIEW))


def centre_square(jpeg: bytes, side: int) -> Image.Image:
    """The centre square of a picture, which the model sees, with sides of so many pixels."""
    with Image.open(io.BytesIO(jpeg)) as opened:
        picture = opened.convert("RGB")
    own = min(picture.size)
    left, top = (picture.width - own) / 2, (picture.height - own) / 2
    return picture.resize((side, side), Image.Resampling.LANCZOS, box=(left, top, left + own, top + own))
