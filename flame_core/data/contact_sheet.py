"""A contact sheet: one picture that shows many, to see at a glance what the shards contain."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from flame_core.data.shards import PictureReader, Split, read_index

_SIDE = 96  # pixels of a picture
_COLUMNS, _LINES = 8, 4


def contact_sheet(shards: Path, split: Split) -> bytes:
    """A JPEG of at most 8 x 4 pictures, taken evenly from a split in index order."""
    rows = read_index(shards, split)
    count = min(len(rows), _COLUMNS * _LINES)
    reader = PictureReader(shards)
    return sheet_of([reader.jpeg(rows[place * len(rows) // count]) for place in range(count)], _COLUMNS)


def sheet_of(pictures: Sequence[bytes], columns: int = _COLUMNS) -> bytes:
    """A JPEG of encoded pictures, line by line."""
    from PIL import Image

    sheet = Image.new("RGB", (columns * _SIDE, -(-len(pictures) // columns) * _SIDE), "white")
    for place, content in enumerate(pictures):
        with Image.open(BytesIO(content)) as image:
            picture = image.convert("RGB")
        picture.thumbnail((_SIDE - 4, _SIDE - 4))
        x, y = place % columns * _SIDE, place // columns * _SIDE
        sheet.paste(picture, (x + (_SIDE - picture.width) // 2, y + (_SIDE - picture.height) // 2))
    buffer = BytesIO()
    sheet.save(buffer, "jpeg", quality=80)
    return buffer.getvalue()
