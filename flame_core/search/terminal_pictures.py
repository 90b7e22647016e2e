"""Pictures in a terminal that can show them: the protocols of kitty and of iTerm2.

https://sw.kovidgoyal.net/kitty/graphics-protocol/ and https://iterm2.com/documentation-images.html. Other terminals,
and output into a file, get nothing.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TextIO

from PIL import Image

from flame_core.data.picture_decoding import PictureError
from flame_core.errors import InputError
from flame_core.inline_pictures import smaller
from flame_core.model.given_pictures import of_file
from flame_core.params import IngestParams

_SIDE, _GAP = 160, 12  # pixels
_CHUNK = 4096  # characters of a picture that kitty takes at once


def protocol(environment: Mapping[str, str]) -> str | None:
    """`kitty`, `iterm2`, or None; a multiplexer such as tmux passes neither on."""
    if environment.get("TMUX") or environment.get("TERM", "").startswith(("screen", "tmux")):
        return None
    if environment.get("KITTY_WINDOW_ID") or environment.get("TERM") in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    if environment.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm"):
        return "iterm2"
    return None


def show_pictures(chosen: Iterable[tuple[Callable[[int], bytes], int]], ingest: IngestParams, out: TextIO) -> None:
    """Show pictures side by side, the first one leftmost.

    Args:
        chosen: (reads the bytes of a picture, its number).
        ingest: how pictures are prepared.
        out: where they are written.
    """
    spoken = protocol(os.environ) if out.isatty() else None
    if spoken is None:
        return
    thumbs = []
    for read, number in chosen:
        try:
            thumbs.append(smaller(of_file(read(number), ingest), _SIDE))
        except (InputError, PictureError):  # the table names it all the same
            continue
    if thumbs:
        out.write(_kitty(_row(thumbs)) if spoken == "kitty" else _iterm2(_row(thumbs)))


def _row(thumbs: list[Image.Image]) -> bytes:
    """One PNG of all."""
    row = Image.new("RGB", (len(thumbs) * (_SIDE + _GAP) - _GAP, max(each.height for each in thumbs)), "white")
    for place, each in enumerate(thumbs):
        row.paste(each, (place * (_SIDE + _GAP), 0))
    encoded = io.BytesIO()
    row.save(encoded, "PNG")
    return encoded.getvalue()


def _kitty(png: bytes) -> str:
    text = base64.b64encode(png).decode()
    parts = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    said = []
    for place, part in enumerate(parts):
        first = "a=T,f=100," if place == 0 else ""
        said.append(f"\033_G{first}m={int(place + 1 < len(parts))};{part}\033\\")
    return "".join(said) + "\n"


def _iterm2(png: bytes) -> str:
    return f"\033]1337;File=inline=1;size={len(png)}:{base64.b64encode(png).decode()}\a\n"
