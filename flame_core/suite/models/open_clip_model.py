"""Checkpoints of open_clip, if that package is installed: `open_clip:<architecture>@<weights>`.

`<weights>` is a name that open_clip knows, or a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.errors import InputError, ParamsError, ResourceError
from flame_core.suite.models.model import Model, PictureSide
from flame_core.suite.models.weights import weights_sha256
from flame_core.vision.decoding import open_picture
from flame_core.vision.prepared_batches import prepared_batches

_PICTURES, _TEXTS = 64, 256


class OpenClipModel(Model):
    """A dual encoder of open_clip with its own preprocessing and tokenizer, in float32.

    Raises:
        InputError: open_clip does not know the architecture or the weights, or they do not fit each other.
        ParamsError: no weights are named.
        ResourceError: the package is not installed.
    """

    def __init__(self, name: str, source: str, device: str) -> None:
        try:
            import open_clip  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError:
            raise ResourceError(f"open_clip:{source}: the package open_clip_torch is not installed") from None
        self.name, self.source, self._device = name, source, device
        architecture, _, weights = source.partition("@")
        if not weights:
            raise ParamsError(f"evaluate.baselines.{name}: {source} names no weights; write {source}@<name or file>")
        try:
            model, _, self._preprocess = open_clip.create_model_and_transforms(
                architecture, pretrained=weights, device=device
            )
            self._tokenizer: Any = open_clip.get_tokenizer(architecture)
        except (RuntimeError, OSError, ValueError) as error:
            raise InputError(f"open_clip:{source} cannot be loaded ({error})") from None
        self._model: Any = model.eval().requires_grad_(False)
        self.identity = {"architecture": architecture, "weights": weights_sha256(model)}

    @torch.inference_mode()
    def pictures(self, pictures: Sequence[bytes]) -> np.ndarray:
        """Normalised vectors of pictures after the model's own preprocessing."""
        batches = prepared_batches(pictures, _PICTURES, self._prepared, torch.stack, self._device)
        return np.concatenate([F.normalize(self._model.encode_image(x).float(), dim=-1).cpu().numpy() for x in batches])

    def picture_side(self) -> PictureSide:
        """The visual tower, which ends in the projection."""
        import open_clip  # pyright: ignore[reportMissingImports]

        prepared: dict[str, Any] = open_clip.get_model_preprocess_cfg(self._model)
        size = prepared["size"]
        side: int = size if isinstance(size, int) else max(size)
        visual = _Pictures(self._model.visual).eval()
        with torch.inference_mode():
            dim = visual(torch.zeros(1, 3, side, side, device=self._device)).shape[1]
        return PictureSide(visual, side, dim, tuple(prepared["mean"]), tuple(prepared["std"]))

    @torch.inference_mode()
    def texts(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Normalised vectors; longer texts are cut at the model's limit."""
        rows = []
        for start in range(0, len(texts), _TEXTS):
            ids = self._tokenizer(list(texts[start : start + _TEXTS])).to(self._device)
            rows.append(F.normalize(self._model.encode_text(ids).float(), dim=-1).cpu().numpy())
        return np.concatenate(rows)

    def _prepared(self, picture: bytes) -> Tensor:
        return self._preprocess(open_picture(picture))


class _Pictures(nn.Module):
    """Normalised pictures [b, 3, S, S] to unit vectors [b, E]."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pictures: Tensor) -> Tensor:
        return F.normalize(self.visual(pictures).float(), dim=-1)
