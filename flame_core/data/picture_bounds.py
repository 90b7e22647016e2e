"""Refuses pictures whose decoding would cost far more than their size suggests, before a decoder runs.

`max_pixels` bounds a decoder's time and memory, except if a format lets a small file request the same work many times:

    JPEG   every scan of a progressive picture processes the whole picture, and an empty scan takes only 23 bytes
    JPEG   EXIF blocks are joined one by one, in a time that grows with the square of their number
    PPM    so are comments between numbers written as text

Pillow bounds the rest: the tags of TIFF and EXIF, PNG's texts and profiles, the scans of a JPEG inside a TIFF
(libtiff). Of GIF, APNG, WebP, AVIF and TIFF only the first frame is read.
"""

from __future__ import annotations

import re

MAX_SCANS = 50  # libjpeg writes 10, the most aggressive optimisers about 15
_MAX_BLOCKS = 100  # of EXIF, and comments in a PPM
_SCAN, _EXIF, _END = 0xDA, b"Exif\0\0", 0xD9
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # a marker that ends a scan's data


class PictureError(Exception):
    """The picture is dropped; `reason` is counted, `detail` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def require_bounded(content: bytes) -> None:
    """Refuse a picture whose decoding cost is not bounded by its number of pixels.

    Raises:
        PictureError: `image_too_many_scans` or `image_too_much_metadata`.
    """
    if content.startswith(b"\xff\xd8"):
        if content.count(_EXIF) > _MAX_BLOCKS:
            raise PictureError("image_too_much_metadata", f"JPEG: more than {_MAX_BLOCKS} blocks of EXIF")
        if (scans := jpeg_scans(content)) > MAX_SCANS:
            raise PictureError("image_too_many_scans", f"JPEG: {scans:,} scans, more than {MAX_SCANS}")
    elif content.startswith((b"P1", b"P2", b"P3")) and content.count(b"#") > _MAX_BLOCKS:
        raise PictureError("image_too_much_metadata", f"PPM: more than {_MAX_BLOCKS} comments")


def jpeg_scans(content: bytes) -> int:
    """How many scans a decoder would process; an upper bound if there are at most `MAX_SCANS`."""
    most = content.count(bytes([0xFF, _SCAN]))  # some may be chance bytes in a profile, or after the picture
    if most <= MAX_SCANS:
        return most
    scans, at = 0, 2
    while (at := content.find(b"\xff", at)) != -1 and at + 4 <= len(content):
        kind = content[at + 1]
        if kind == _END:
            break
        if kind in (0x00, 0x01, 0xFF) or 0xD0 <= kind <= 0xD8:  # fill bytes, and markers without a length
            at += 1 if kind == 0xFF else 2
            continue
        at += 2 + int.from_bytes(content[at + 2 : at + 4])
        if kind == _SCAN:
            scans += 1
            following = _AFTER_SCAN.search(content, at)
            if following is None:
                break
            at = following.start()
    return scans
