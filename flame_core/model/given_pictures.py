"""Pictures as a caller hands them over (paths, bytes, PIL pictures), to the bytes that a tower is given.

They are prepared as `ingest` prepares a source's pictures, so a vector does not depend on the way a picture came in.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image

from flame_core.data.picture_decoding import PictureError, decode_opened, read_picture
from flame_core.errors import InputError
from flame_core.files.regular_files import open_regular
from flame_core.names import shown
from flame_core.params import IngestParams

Picture = str | os.PathLike[str] | bytes | Image.Image
LARGEST = 1 << 30  # bytes of a file; it is held in memory


def as_list(pictures: Picture | Iterable[Picture]) -> Sequence[Picture]:
    """One picture or many as a list.

    Raises:
        InputError: there is none.
    """
    one = isinstance(pictures, str | os.PathLike | bytes | Image.Image)
    given = [pictures] if one else list(pictures)
    if not given:
        raise InputError("no pictures to encode: the list is empty")
    return given


def prepared(picture: Picture, place: int, ingest: IngestParams) -> bytes:
    """The encoded picture that the tower is given.

    Raises:
        InputError: names the picture by its path, or by its place in the list, and says what is wrong with it.
    """
    if not isinstance(picture, str | os.PathLike | bytes | Image.Image):
        raise InputError(f"picture {place} is {type(picture).__name__}: give a path, bytes, or a PIL picture")
    name = f"picture {place}" if isinstance(picture, bytes | Image.Image) else shown(os.fspath(picture))
    try:
        if isinstance(picture, Image.Image):
            return _of_pixels(picture, ingest)
        return of_file(picture if isinstance(picture, bytes) else read_file(Path(picture)), ingest)
    except PictureError as error:
        raise InputError(f"{name} cannot be used as a picture: {error.reason}: {error.detail}") from None


def of_file(content: bytes, ingest: IngestParams) -> bytes:
    """The encoded picture that the tower is given for the bytes of a file.

    Raises:
        PictureError: they are not a picture that can be decoded.
    """
    return read_picture(content, ingest).jpeg or content


def read_file(path: Path) -> bytes:
    """The bytes of a picture file.

    Raises:
        InputError: it is missing, not a regular file, or too large.
    """
    try:
        with open_regular(path) as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:  # a NUL in the path is a ValueError
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{shown(os.fspath(path))} cannot be read as a picture: {why}") from None
    if len(content) > LARGEST:
        raise InputError(f"{shown(os.fspath(path))} has more than {LARGEST:,} bytes, the most that are read")
    return content


def _of_pixels(picture: Image.Image, ingest: IngestParams) -> bytes:
    """A PIL picture; one that was opened from a file gives the bytes that the file would."""
    own = picture.copy()  # decoding must not change the caller's picture
    own.format = picture.format
    decoded = decode_opened(own, ingest)
    if decoded.jpeg is not None:
        return decoded.jpeg
    buffer = BytesIO()
    decoded.rgb.save(buffer, "PNG")  # a JPEG that needs no change: its pixels, without a second loss
    return buffer.getvalue()
