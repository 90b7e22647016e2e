"""The part of a report about the captions that the model's captioner writes (`flame caption-lm`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flame_core.digest import text_sha256
from flame_core.errors import InputError
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.soft_prompts import RECORD
from flame_core.verification import read_digests

_SHOWN = 24  # pictures
PREFIX = "captions/"


@dataclass(frozen=True)
class PictureCaption:
    """A picture by its row in the split, what was written, its reference captions, and its CIDEr-D."""

    picture: int
    written: str
    references: list[str]
    cider: float


@dataclass(frozen=True)
class CaptionsShown:
    """What the section shows.

    Attributes:
        metrics: `bleu_4`, `cider`, `loss`, `loss_of_others` and `distinct`, of all pictures that have a text.
        count: number of these pictures.
        pictures: some of the split, drawn by the digest of their keys.
    """

    metrics: dict[str, float]
    count: int
    pictures: list[PictureCaption]


def captions_shown(captioner: Path, model: Path, keys: Sequence[str]) -> CaptionsShown:
    """What to show of the captioner that was trained from a model, for the pictures of these keys.

    Raises:
        InputError: its record is missing or damaged, or it was trained from another model.
    """
    path = captioner / RECORD
    rows = {key: row for row, key in enumerate(keys)}
    try:
        source = json.loads((captioner / CONFIG).read_text("utf-8"))["data"]["model"][WEIGHTS]
        record = json.loads(path.read_text("utf-8"))
        written = sorted(record["captions"], key=lambda each: text_sha256("captions " + each["key"]))
        pictures = [
            PictureCaption(rows[each["key"]], each["written"], list(each["references"]), float(each["cider"]))
            for each in written
            if each["key"] in rows
        ]
        metrics = {name: float(value) for name, value in record["scores"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is missing or damaged ({error!r}): run `flame caption-lm`") from None
    if source != read_digests(model)[WEIGHTS]:
        raise InputError(f"{captioner} was trained from another model than {model}: run `flame caption-lm`")
    return CaptionsShown(metrics, len(written), pictures[:_SHOWN])
