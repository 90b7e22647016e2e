"""Any timm backbone, for linear probes: `timm:<name>[@<weights file>]`. Without a file timm's own weights are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flame_core.errors import InputError
from flame_core.names import expanded
from flame_core.suite.models.model import Model, NotOffered
from flame_core.suite.models.timm_weights import pretrained_backbone
from flame_core.suite.models.weights import weights_sha256
from flame_core.vision.decoding import open_picture
from flame_core.vision.prepared_batches import prepared_batches

_PICTURES = 64
_NO_TEXTS = "a backbone has no texts; it can be probed with linear_probe benchmarks"


class TimmBackbone(Model):
    """A backbone with the preprocessing that timm records for it, in float32.

    Raises:
        InputError: timm does not know the name, cannot fetch its weights, or the file has another shape.
    """

    def __init__(self, name: str, source: str, device: str) -> None:
        from timm.data.config import resolve_model_data_config
        from timm.data.transforms_factory import create_transform

        self.name, self.source, self._device = name, source, device
        backbone, _, weights = source.partition("@")
        try:
            model = pretrained_backbone(backbone, expanded(weights) if weights else None)
        except Exception as error:  # timm and the hub raise many kinds; all mean that there is no model
            raise InputError(f"timm:{source} cannot be loaded ({type(error).__name__}: {error})") from None
        self.identity = {"backbone": backbone, "weights": weights_sha256(model)}
        self._model: Any = model.eval().requires_grad_(False).to(device)
        self._transform: Any = create_transform(**resolve_model_data_config(model), is_training=False)

    def pictures(self, pictures: Sequence[bytes]) -> np.ndarray:
        """Refused: its vectors are not comparable with texts."""
        raise NotOffered(_NO_TEXTS)

    def texts(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Refused."""
        raise NotOffered(_NO_TEXTS)

    @torch.inference_mode()
    def features(self, pictures: Sequence[bytes]) -> np.ndarray:
        """The backbone's pooled features."""
        batches = prepared_batches(pictures, _PICTURES, self._prepared, torch.stack, self._device)
        return np.concatenate([self._model(x).float().cpu().numpy() for x in batches])

    def _prepared(self, picture: bytes) -> Tensor:
        return self._transform(open_picture(picture))
