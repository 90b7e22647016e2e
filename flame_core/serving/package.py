"""The files of a servable model: weights, config, cached class texts, what is needed to embed more, a model card.

The folder holds:

    model.safetensors     trained weights
    config.json           architecture and space
    classes.safetensors   [classes, hidden]: the class texts of the evaluation, so that zero-shot labels need no LLM
    serving.json          class names, and the params that determine how pictures and texts are prepared
    text.safetensors      only for a recipe with a text tower: its weights
    tokenizer.json        the tokenizer of that tower
    center.safetensors    only with text.center, if texts are the frozen LLM's: the means of the recipe's reading
    llm_adapter/          only with adapt_llm, if texts are the LLM's: the adapters that it needs to read more texts
    MODEL_CARD.md         data, licences, recipe, scores by language, limits
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flame_core.digest import json_bytes
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.measuring.classification import class_embeddings
from flame_core.measuring.text_side import side_in
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.params import Params
from flame_core.text.llm_adapter import ADAPTER_FILES, PACKED
from flame_core.text.side import TextSide
from flame_core.text.tensor_file import tensor_bytes

CLASSES, SERVING, CARD = "classes.safetensors", "serving.json", "MODEL_CARD.md"
CLASS_TENSOR = "classes"


def package_files(
    params: Params,
    layout: Layout,
    recipe: str,
    texts: TextSide,
    names: Sequence[str],
    card: str,
) -> tuple[dict[str, Path], dict[str, bytes]]:
    """The files of a servable model: those that exist, and the contents of new ones.

    Args:
        params: the run's.
        layout: the run's.
        recipe: the model's.
        texts: the model's text side, as it was evaluated.
        names: top-level classes of the held-out split; may be empty.
        card: the model card.
    """
    model = layout.model(recipe)
    packed = texts.save()
    existing = {**{name: model / name for name in (WEIGHTS, CONFIG)}, **packed.files}
    if params.adapt_llm is not None and params.train[recipe].text_tower is None:
        existing |= {f"{PACKED}/{name}": layout.llm_adapter / name for name in ADAPTER_FILES}
    t = np.zeros((0, texts.dim), np.float32)  # [C, D]
    if names:
        t = class_embeddings(params.evaluate, names, texts.lookup)
    content = params.model_dump(mode="json")
    serving = {
        "classes": list(names),
        "ingest": content["ingest"],
        "llm": content["llm"],
        "text": content["text"],
        **packed.values,
    }
    new = {
        CLASSES: tensor_bytes({CLASS_TENSOR: t}, "float32"),
        SERVING: json_bytes(serving),
        CARD: card.encode(),
    }
    return existing, new


def require_package(folder: Path) -> None:
    """Refuse a folder that is not a servable model.

    Raises:
        InputError: names the missing files.
    """
    missing = [name for name in (WEIGHTS, CONFIG, CLASSES, SERVING) if not (folder / name).is_file()]
    if CONFIG not in missing:
        missing += [name for name in side_in(folder).required() if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} is not a servable model: {', '.join(missing)} missing; run `flame evaluate` to pack it"
        )
