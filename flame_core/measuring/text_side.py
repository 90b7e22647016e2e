"""A model's own text tower, if its recipe trained one with the image tower."""

from __future__ import annotations

import json
from pathlib import Path

from flame_core.errors import InputError
from flame_core.measuring.classification import Lookup
from flame_core.settings import settings


def has_text_tower(model: Path) -> bool:
    """Whether the recipe of the model in a folder trained its own text tower.

    Its `config.json` decides, not the other files: a model that lost its tower must not answer in another space.

    Raises:
        InputError: the folder has no readable config.
    """
    from flame_core.vision.tower import CONFIG

    try:
        return json.loads((model / CONFIG).read_text("utf-8"))["recipe"].get("text_tower") is not None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{model} is not a usable model ({error}); run `flame train` for it") from error


def trained_texts(model: Path) -> Lookup | None:
    """(kind, texts) -> [N, K, D] from the text tower in a model folder; None if its texts are the frozen LLM's.

    Raises:
        InputError: the folder's config or text tower is missing or damaged.
    """
    from flame_core.text.transformer import TrainedTexts

    if not has_text_tower(model):
        return None
    return TrainedTexts(model, settings().torch_device()).lookup
