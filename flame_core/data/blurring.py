"""Blurs boxes of a picture, such as faces, that a column of the source names (`ingest.blur`).

A box is [left, top, right, bottom] as shares of the width and height, as DataComp's `face_bboxes` are.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from typing import Any

from PIL import ImageFilter

from flame_core.data.picture_bounds import PictureError
from flame_core.data.picture_decoding import ShardPicture
from flame_core.params import BlurParams

BLUR_BOXES = "blur_boxes"  # the reason of a pair whose boxes cannot be read, or that has none although it must
_MARGIN = 0.1  # of a box's side, on each side
Box = tuple[float, float, float, float]


def boxes_of(columns: Mapping[str, Any], rule: BlurParams) -> list[Box]:
    """The boxes of a pair.

    Raises:
        PictureError: they cannot be read, or there is no such value and `missing` is drop. A picture with a box that is
            not understood must not be stored as it is.
    """
    value = columns.get(rule.column)
    if value is None or (isinstance(value, str) and not value.strip()):  # an empty cell
        if rule.missing == "drop":
            raise PictureError(BLUR_BOXES, f"it has nothing in the column {rule.column!r}")
        return []
    try:
        rows = json.loads(value) if isinstance(value, str) else value
        boxes = [tuple(float(edge) for edge in row) for row in rows]
        if not all(
            len(box) == 4 and all(map(math.isfinite, box)) and box[0] < box[2] and box[1] < box[3] for box in boxes
        ):
            raise ValueError
        if any(edge < -0.5 or edge > 1.5 for box in boxes for edge in box):  # pixels, not shares
            raise ValueError
    except (TypeError, ValueError, OverflowError, RecursionError):
        detail = (
            f"{str(value)[:80]} in the column {rule.column!r} are no boxes [[left, top, right, bottom], ...] as shares"
        )
        raise PictureError(BLUR_BOXES, detail) from None
    return [(box[0], box[1], box[2], box[3]) for box in boxes]


def blurred(picture: ShardPicture, boxes: list[Box], jpeg_quality: int) -> ShardPicture:
    """The picture with its boxes blurred, with a margin, beyond recognition; encoded again."""
    if not boxes:
        return picture
    rgb = picture.rgb.copy()
    width, height = rgb.size
    for left, top, right, bottom in boxes:
        across, down = _MARGIN * (right - left), _MARGIN * (bottom - top)
        area = (
            max(0, math.floor((left - across) * width)),
            max(0, math.floor((top - down) * height)),
            min(width, math.ceil((right + across) * width)),
            min(height, math.ceil((bottom + down) * height)),
        )
        if area[0] >= area[2] or area[1] >= area[3]:
            continue  # wholly outside
        part = rgb.crop(area)
        rgb.paste(part.filter(ImageFilter.BoxBlur(max(2.0, max(part.size) / 4))), area)
    rgb.info.clear()
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=jpeg_quality)
    return ShardPicture(rgb, buffer.getvalue())
