"""Identifies files that cannot be decoded as a picture, to give the ledger the true reason."""

from __future__ import annotations

import io
import re

from PIL import Image

from flame_core.data.picture_kinds import FORMATS

_NAMED = (
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"gimp xcf", "GIMP"),
    (b"\0\0\1\0", "a Windows icon"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"v/1\1", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
    (b"\x1f\x8b", "gzip, such as a packed SVG"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1aE\xdf\xa3", "a video"),
)
_BRANDS = {
    "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
    "AVIF": (b"avif", b"avis"),
    "a camera's raw file": (b"crx ",),
}
_PAGE = re.compile(rb"\s*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE)
_POINTER = b"version https://git-lfs"


def unsupported_format(content: bytes) -> str | None:
    """The name of a format that is known but not decoded; None for any other content."""
    if content[4:8] == b"ftyp":
        return next((name for name, brands in _BRANDS.items() if content[8:12] in brands), "a video")
    return next((name for start, name in _NAMED if content.startswith(start)), None)


def why_unreadable(content: bytes) -> tuple[str, str]:
    """(reason, detail) for bytes that no decoder accepts."""
    if name := unsupported_format(content):
        return "image_unsupported", f"{name}, which is not decoded here; convert it, to PNG for instance"
    if _PAGE.match(content[:1024].removeprefix(b"\xef\xbb\xbf")):
        return "image_unreadable", "an HTML page, not a picture"
    if content.startswith(_POINTER):
        return "image_unreadable", "a pointer of Git LFS, not the picture; run `git lfs pull`"
    if found := _refusal(content):
        name, error = found
        if name == "TIFF" and (isinstance(error, KeyError) or "unknown" in str(error)):
            return "image_unsupported", f"a TIFF whose pixels or compression are not decoded here ({error})"
        return "image_unreadable", f"{name}: its header is damaged ({error})"
    return "image_unreadable", "not a picture of a known format"


def _refusal(content: bytes) -> tuple[str, Exception] | None:
    """The format whose signature the bytes begin with, and its decoder's error."""
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept and accept(content[:16]) is True:
            try:
                factory(io.BytesIO(content), "")
            except Exception as error:  # Pillow's plugins raise many kinds of errors for a broken header
                return name, error
    return None
