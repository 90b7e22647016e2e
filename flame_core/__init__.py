"""FLAME: pre-train image encoders against the embeddings of a frozen large language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from flame_core.model.loaded import Model


def load(
    model: str | os.PathLike[str] = "models:/flame@champion", project: str | os.PathLike[str] | None = None
) -> Model:
    """A trained model, with its image tower in memory.

    Args:
        model: `models:/flame@champion`, `models:/flame/3`, `runs:/<id>`, the folder of a trained model
            (`data/models/flame`), or that of a packaged one.
        project: folder of the project whose MLflow, LLM and models are meant; by default the working directory.

    Raises:
        InputError: there is no such model, or it is damaged.
    """
    from flame_core.model.locate import find_model  # torch and timm are imported only here

    found = find_model(model, project)
    found.open()
    return found
