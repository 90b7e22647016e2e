"""What a JPEG's header says about its pixels, read without decoding: which decoder can take it depends on that only."""

from __future__ import annotations

import struct
from typing import NamedTuple

_START = b"\xff\xd8"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the other three are no frames
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_NO_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
_SCAN, _END, _ADOBE = 0xDA, 0xD9, 0xEE


class JpegFrame(NamedTuple):
    """The frame of a JPEG: `process` is its marker, `sampling` has (horizontal, vertical) for each component.

    `adobe` is the colour transform that Adobe's marker names, None without such a marker.
    """

    process: int
    bits: int
    width: int
    height: int
    sampling: tuple[tuple[int, int], ...]
    adobe: int | None

    @property
    def ordinary(self) -> bool:
        """Whether it holds three components of eight bits, Huffman-coded: what every decoder reads alike."""
        known = self.process in (_BASELINE, _EXTENDED, _PROGRESSIVE)
        return known and self.bits == 8 and len(self.sampling) == 3 and min(self.width, self.height) > 0


def jpeg_frame(content: bytes) -> JpegFrame | None:
    """The frame of a picture; None if it is no JPEG, or broken before its frame."""
    if not content.startswith(_START):
        return None
    at, adobe = 2, None
    while at + 4 <= len(content) and content[at] == 0xFF:
        kind = content[at + 1]
        if kind == 0xFF or kind in _NO_LENGTH:  # a fill byte, or a marker without a length
            at += 1 if kind == 0xFF else 2
            continue
        if kind in (_SCAN, _END):
            return None
        body = content[at + 4 : at + 2 + int.from_bytes(content[at + 2 : at + 4])]
        if kind in _FRAMES:
            return _frame(kind, body, adobe)
        if kind == _ADOBE and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
        at += 4 + len(body)
    return None


def _frame(kind: int, body: bytes, adobe: int | None) -> JpegFrame | None:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        return None
    bits, height, width, components = struct.unpack_from(">BHHB", body)
    factors = (body[7 + 3 * number] for number in range(components))
    return JpegFrame(kind, bits, width, height, tuple((each >> 4, each & 15) for each in factors), adobe)
