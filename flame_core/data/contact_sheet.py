"""A contact sheet: one picture that shows many, to see at a glance what the shards contain."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from flame_core.data.shards import PictureReader, Split, read_index

_SIDE = 96  # pixels of a picture


def contact_sheet(shards: Path, split: Split, columns: int = 8, lines: int = 4) -> bytes:
    """A JPEG of at most `columns` x `lines` pictures, taken evenly from a split in index order."""
    from PIL import Image

    rows = read_index(shards, split)
    count = min(len(rows), columns * lines)
    reader = PictureReader(shards)
    sheet = Image.new("RGB", (columns * _SIDE, -(-count // columns) * _SIDE), "white")
    for place in range(count):
        with Image.open(BytesIO(reader.jpeg(rows[place * len(rows) // count]))) as image:
            picture = image.convert("RGB")
        picture.thumbnail((_SIDE - 4, _SIDE - 4))
        x, y = place % columns * _SIDE, place // columns * _SIDE
        sheet.paste(picture, (x + (_SIDE - picture.width) // 2, y + (_SIDE - picture.height) // 2))
    buffer = BytesIO()
    sheet.save(buffer, "jpeg", quality=80)
    return buffer.getvalue()
