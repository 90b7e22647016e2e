"""Makes a timm backbone with weights: timm's own, or those of a file as timm publishes it.

A published file also holds the classifier that the backbone was trained with, which a backbone has no place for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def pretrained_backbone(name: str, file: Path | None) -> Any:
    """The backbone `name` without a classifier, with the weights in a safetensors file; None: timm's own.

    Raises:
        Exception: whatever timm, the hub or safetensors raise for a name or a file that cannot be used.
    """
    import timm
    from safetensors.torch import load_file

    model: Any = timm.create_model(name, pretrained=file is None, num_classes=0)
    if file is not None:
        own, named = model.state_dict(), model.pretrained_cfg.get("classifier") or ()
        classifiers = tuple(f"{each}." for each in ([named] if isinstance(named, str) else named))
        given = load_file(file)
        model.load_state_dict({key: given[key] for key in given if key in own or not key.startswith(classifiers)})
    return model
