"""Decides whether a pair is for training or validation, from the pair only.

So neither more data nor other filters move a pair, and pairs with the same caption (or the same group, if the source
names one) are on the same side. A split fixed by the source is kept.
"""

from __future__ import annotations

from collections.abc import Mapping

from flame_core.data.captions_text import primary_language, same_text, text_id
from flame_core.data.shards import Split


def side_number(captions: Mapping[str, list[str]], group: str | None) -> int:
    """64 uniform bits that decide the side: a hash of the group, or of the first caption in the primary language.

    `captions` are all of the pair, before `ingest.filters`.
    """
    return text_id(same_text(captions[primary_language(captions)][0]) if group is None else f"group {group}")


def side(fixed: Split | None, number: int, val_fraction: float) -> Split:
    """The side of a pair: as fixed by the source, else validation for the lowest `val_fraction` of the numbers."""
    return fixed or ("val" if number < val_fraction * 2**64 else "train")
