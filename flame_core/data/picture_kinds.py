"""Kinds of picture files: which can be decoded here, and which are known and cannot be.

Only the names of files are looked at here; what a file is, its bytes decide (`pictures.py`).
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
# Pictures, or what people name so, that cannot be decoded here.
_OTHERS = (
    "img image pic heic heif hif jxl jp2 j2k jpf jpx jpm jxr psd eps ai pdf ico icns tga exr hdr dds dng raw cr2 cr3 "
    "nef arw orf rw2 svgz apng avif avifs pcx xcf mpo mp4 webm"
)
OTHER_SUFFIXES = frozenset(f".{name}" for name in _OTHERS.split()) | {""}


def suffix_of(name: str) -> str:
    """The suffix of a file's name in small letters, with its dot; empty where it has none."""
    return PurePosixPath(name).suffix.lower()


def is_picture(name: str) -> bool:
    """Whether a file of this name is read as a picture."""
    return suffix_of(name) in SUFFIXES


def may_be_picture(name: str) -> bool:
    """Whether a file that is not read may stand where a picture was meant: a known suffix, or none at all."""
    return suffix_of(name) in SUFFIXES | OTHER_SUFFIXES
