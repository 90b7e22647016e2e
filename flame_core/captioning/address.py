"""Finds a captioner and its LLM by name: a folder, a recipe, or a version in MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.names import shown
from flame_core.soft_prompts import WRITES


def find_captioner(name: str, layout: Layout) -> Path:
    """The folder of the model `models:/<name>@<alias>`, `models:/<name>/<version>`, `runs:/<id>`, a folder or a recipe.

    Raises:
        InputError: there is no such model, or it cannot write captions.
        ResourceError: MLflow is needed, and off or not there.
    """
    if name.startswith(("models:/", "runs:/")):
        from flame_core.model.versions import package_of

        folder = package_of(layout, name).folder
    else:
        places = [layout.resolve(name), layout.model(name), layout.resolve(f"data/models/{name}")]
        folder = next((place for place in places if (place / WEIGHTS).is_file()), places[0])
        if not (folder / WEIGHTS).is_file():
            raise InputError(
                f"{shown(name)} is no captioner: name models:/<name>@<alias>, a recipe with the term prompts, or the "
                f"folder of a model; `flame caption-lm` makes data/captioner ({folder / WEIGHTS} does not exist)"
            )
    writes_of(folder)
    return folder


def find_llm(folder: Path, given: str | None, layout: Layout) -> Path:
    """The folder of a captioner's LLM: that which is given, or data/llm/<name> of this run or of the project.

    Raises:
        InputError: it is not there.
    """
    name = str(writes_of(folder)["llm_name"])
    places = [layout.resolve(given)] if given else [layout.llm / name, layout.resolve(f"data/llm/{name}")]
    found = next((place for place in places if (place / "source.json").is_file()), None)
    if found is None:
        raise InputError(
            f"{folder} writes with the LLM {name}, which is not in {places[0]}: run `flame fetch-llm` in the project "
            "that trained it, and name the folder (`llm`)"
        )
    return found


def writes_of(folder: Path) -> dict[str, Any]:
    """What a model's config says about its prompts.

    Raises:
        InputError: the model is missing or damaged, or cannot write captions.
    """
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        found = config.get(WRITES)
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{folder} is not a usable model ({error})") from None
    if not isinstance(found, dict):
        raise InputError(
            f"{folder} cannot write captions: its tower has no connector. Take a model of `flame caption-lm`, or of a "
            "recipe with the term prompts"
        )
    return found
