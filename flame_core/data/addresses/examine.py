"""Makes of received bytes the picture that is stored, or says why not.

Runs in threads: Pillow decodes without Python's lock.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

from flame_core.data import svg
from flame_core.data.addresses.attempts import OPTED_OUT
from flame_core.data.perceptual import perceptual_hash
from flame_core.data.picture_bounds import PictureError
from flame_core.data.picture_decoding import decode_opened, open_picture, read_picture
from flame_core.params import IngestParams, UrlsSource

_NO_PICTURE = {"image_empty", "image_unreadable", "image_unsupported"}  # by the first bytes, before decoding
_KEPT = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "TIFF": "tif", "AVIF": "avif", "BMP": "bmp"}


@dataclass(frozen=True)
class StoredPicture:
    """A picture as it is stored; its suffix says its format."""

    content: bytes
    suffix: str
    width: int
    height: int


def examine(content: bytes, params: UrlsSource, opted_out: frozenset[int] = frozenset()) -> StoredPicture:
    """The picture in `content`, scaled to `max_side` if that is set.

    Raises:
        PictureError: its reason is one of `attempts.py`: `not_a_picture`, `small`, `aspect`, `opt_out_list` (its
            perceptual hash is in `opted_out`; the detail is the hash as lists have it), or `image_...` of
            `read_picture`.
    """
    rules = _rules(params.max_side or 1 << 16, params.max_pixels)
    if svg.is_svg(content):
        return _drawing(content, params)
    try:
        image = open_picture(content, params.max_pixels)
    except PictureError as error:
        raise PictureError("not_a_picture" if error.reason in _NO_PICTURE else error.reason, error.detail) from None
    _require_shape(image.size, params)
    if params.max_side is None and not opted_out:
        return StoredPicture(content, _KEPT.get(image.format or "", "bin"), *image.size)
    suffix = _KEPT.get(image.format or "", "bin")
    picture = decode_opened(image, rules)
    if opted_out and (number := perceptual_hash(picture.rgb)) in opted_out:
        raise PictureError(OPTED_OUT, f"p:{number:016x}")
    if params.max_side is None:
        return StoredPicture(content, suffix, *picture.rgb.size)
    return StoredPicture(picture.jpeg or content, "jpg", *picture.rgb.size)


def looks(content: bytes, params: UrlsSource) -> int | None:
    """The perceptual hash of a stored picture; None if it cannot be decoded, of which `ingest` tells."""
    try:
        if svg.is_svg(content):
            picture = read_picture(content, _rules(params.max_side or 512, params.max_pixels))
        else:
            rules = _rules(params.max_side or 1 << 16, params.max_pixels)
            picture = decode_opened(open_picture(content, params.max_pixels), rules)
    except PictureError:
        return None
    return perceptual_hash(picture.rgb)


def _drawing(content: bytes, params: UrlsSource) -> StoredPicture:
    """An SVG, as a JPEG of the size that `ingest` would give it."""
    picture = read_picture(content, _rules(params.max_side or 512, params.max_pixels))
    _require_shape(picture.rgb.size, params)
    if params.max_side is None:
        return StoredPicture(content, "svg", *picture.rgb.size)
    return StoredPicture(picture.jpeg or content, "jpg", *picture.rgb.size)


@cache
def _rules(max_side: int, max_pixels: int) -> IngestParams:
    return IngestParams(max_side=max_side, max_pixels=max_pixels)


def _require_shape(size: tuple[int, int], params: UrlsSource) -> None:
    if params.min_side is not None and min(size) < params.min_side:
        raise PictureError("small", f"{size[0]} x {size[1]} pixels, and min_side is {params.min_side}")
    if params.max_aspect is not None and max(size) > params.max_aspect * min(size):
        raise PictureError("aspect", f"{size[0]} x {size[1]} pixels, and max_aspect is {params.max_aspect:g}")


def has_digest(content: bytes, sha256: str | None, md5: str | None) -> bool:
    """Whether bytes have the digests that the list gives; True if it gives none."""
    if sha256 and hashlib.sha256(content).hexdigest() != sha256.lower():
        return False
    return not md5 or hashlib.md5(content, usedforsecurity=False).hexdigest() == md5.lower()
