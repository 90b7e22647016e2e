"""Which text side a model has, by the recipe in its `config.json`: the one place that chooses between them.

Not the files beside the config decide: a model that lost its text tower must not answer in another space.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.lexical.text_side import LexicalTexts
from flame_core.model_files import CONFIG
from flame_core.params import Params
from flame_core.text.frozen_texts import FacetTexts, SentenceTexts
from flame_core.text.side import OpenEncoder, TextSide
from flame_core.text.store import TextStore

_READINGS: dict[str, type[TextSide]] = {"facets": FacetTexts, "sentence": SentenceTexts}


def side_of(recipe: Mapping[str, Any]) -> type[TextSide]:
    """The text side of models of a recipe, given as in their config.

    Raises:
        KeyError: the recipe names a reading that is not known here.
    """
    from flame_core.lexical.adapted_texts import AdaptedTexts  # torch, as the next
    from flame_core.text.projection import ProjectedTexts  # torch
    from flame_core.text.transformer import TrainedTexts

    if recipe.get("text_tower") is not None:
        return TrainedTexts
    if recipe.get("text_projection") is not None:
        return ProjectedTexts
    if recipe.get("model", {}).get("head") == "lexical":
        return LexicalTexts if recipe.get("lora") is None else AdaptedTexts
    return _READINGS[recipe.get("reading", "facets")]


def side_in(folder: Path) -> type[TextSide]:
    """The text side of the model in a folder, or in a package.

    Raises:
        InputError: the folder holds no readable config.
    """
    try:
        return side_of(json.loads((folder / CONFIG).read_text("utf-8"))["recipe"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder} is not a usable model ({error}); run `flame train` for it") from error


def texts_of(model: Path, params: Params, layout: Layout, store: TextStore) -> TextSide:
    """The texts of the model in a folder of this run.

    Raises:
        InputError: its config or its text tower is missing or damaged, or the store lacks its reading.
    """
    return side_in(model).of_model(model, store, cache(_opener(params, layout)))


def _opener(params: Params, layout: Layout) -> OpenEncoder:
    def open_encoder() -> Any:
        from flame_core.text.encoder import TextEncoder

        return TextEncoder.open(params, layout)

    return open_encoder
