"""FLAME: pre-train image encoders against the embeddings of a frozen large language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from flame_core.model.loaded import Model
    from flame_core.tuning.classifier import Classifier


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


def load_head(folder: str | os.PathLike[str], model: Model) -> Classifier:
    """A head that `flame tune` trained on a model's features, such as `data/heads/flame`; it classifies pictures.

    Raises:
        InputError: the folder holds no head, or one for another tower.
    """
    from flame_core.tuning.classifier import Classifier

    return Classifier(folder, model)
