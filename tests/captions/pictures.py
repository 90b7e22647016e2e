"""Hand-made pictures whose truth is known."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from flame_core.data.shards import Sample


def jpeg(picture: Image.Image) -> bytes:
    """Encoded as ingest does."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def canvas(background="white", size=(200, 200)) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", size, background)
    return picture, ImageDraw.Draw(picture)


def disc(colour="red", background="white", box=(20, 20, 180, 180), size=(200, 200)) -> Image.Image:
    picture, draw = canvas(background, size)
    draw.ellipse(box, fill=colour)
    return picture


def box(colour="blue", background="white", box=(20, 20, 180, 180), size=(200, 200)) -> Image.Image:
    picture, draw = canvas(background, size)
    draw.rectangle(box, fill=colour)
    return picture


def noise(seed=0, size=(200, 200), middle=(90, 140, 60), spread=60) -> Image.Image:
    """A photograph's worth of detail around one colour."""
    draws = np.random.default_rng(seed).integers(-spread, spread + 1, (size[1], size[0], 1))
    return Image.fromarray(np.clip(np.array(middle) + draws, 0, 255).astype(np.uint8))


def sample(key="pair", picture=None, **meta) -> Sample:
    """A sample as ingest writes it."""
    given = {
        "captions": {"en": ["A thing."]},
        "title": None,
        "keywords": [],
        "category": None,
        "licence": None,
        "source": "test",
        "sha256": "0" * 64,
        "width": 200,
        "height": 200,
    }
    return Sample(key, jpeg(picture or disc()), given | meta)
