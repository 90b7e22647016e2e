"""A model's own text side, where its recipe trained one beside the image tower."""

from __future__ import annotations

from pathlib import Path

from flame_core.evaluation.classification import Lookup
from flame_core.settings import settings


def trained_texts(model: Path) -> Lookup | None:
    """(kind, texts) -> [N, K, D] by the text tower in a model folder; None where texts are the frozen LLM's.

    Raises:
        InputError: the folder's text tower is damaged.
    """
    from flame_core.text.transformer import WEIGHTS, TrainedTexts

    if not (model / WEIGHTS).is_file():
        return None
    return TrainedTexts(model, settings().torch_device()).lookup
