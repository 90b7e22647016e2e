"""Pictures that tests make: random coloured shapes on white, all different."""

from __future__ import annotations

import io
import random

from PIL import Image, ImageDraw


def drawing(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """An RGB picture; other seeds give quite other pictures."""
    rng = random.Random(seed)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for _ in range(7):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        w, h = rng.randrange(8, size[0] // 2), rng.randrange(8, size[1] // 2)
        colour = tuple(rng.randrange(256) for _ in range(3))
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)((x - w, y - h, x + w, y + h), fill=colour)
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(seed: int, size: tuple[int, int] = (96, 80)) -> bytes:
    return encoded(drawing(seed, size))
