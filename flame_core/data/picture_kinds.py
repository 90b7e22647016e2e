"""Kinds of picture files: which can be decoded, and which are known but cannot.

Only file names are considered here; `picture_decoding.py` decides by a file's bytes.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from PIL import features

_PILLOW = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm"),
    **({"AVIF": (".avif",)} if features.check("avif") else {}),
}
# What Pillow may open: no format that runs programs or reads other files (EPS, WMF, ...).
FORMATS = tuple(_PILLOW)
SUFFIXES = frozenset(suffix for suffixes in _PILLOW.values() for suffix in suffixes) | {".svg"}
# Suffixes that people use for pictures but that cannot be decoded here.
_OTHERS = (
    "img image pic heic heif hif jxl jp2 j2k jpf jpx jpm jxr psd eps ai pdf ico icns tga exr hdr dds dng raw cr2 cr3 "
    "nef arw orf rw2 svgz apng avif avifs pcx xcf mpo mp4 webm"
)
OTHER_SUFFIXES = frozenset(f".{name}" for name in _OTHERS.split()) | {""}


def suffix_of(name: str) -> str:
    """The suffix of a file's name in lower case, with its dot; empty if it has none."""
    return PurePosixPath(name).suffix.lower()


def is_picture(name: str) -> bool:
    """Whether a file of this name is read as a picture."""
    return suffix_of(name) in SUFFIXES


def may_be_picture(name: str) -> bool:
    """Whether an unread file may have been meant as a picture: it has a picture suffix, or none."""
    return suffix_of(name) in SUFFIXES | OTHER_SUFFIXES
