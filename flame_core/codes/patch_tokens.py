"""Patch tokens of a frozen tower in evaluation mode: no augmentation, no dropout, no CLS token.

A tower is a model folder of `flame train`, or a timm backbone with its own preprocessing. Pictures are read `BATCH` at
a time in a fixed order, so on one machine the same pictures have the same tokens, bit for bit.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from flame_core.digest import file_sha256
from flame_core.errors import InputError, ParamsError
from flame_core.model_files import WEIGHTS
from flame_core.suite.models.timm_weights import pretrained_backbone
from flame_core.suite.models.weights import weights_sha256
from flame_core.vision.image_encoder import ImageEncoder, load_encoder
from flame_core.vision.projector import PatchProjector
from flame_core.vision.tower import ImageTower

BATCH = 100  # pictures


class PatchTower(Protocol):
    """A tower that gives patch tokens.

    Attributes:
        identity: what its tokens follow from, as JSON.
        name: as params name it; pages are outs, so it is no path of this machine.
    """

    identity: dict[str, Any]
    name: str

    def tokens(self, jpegs: Sequence[bytes]) -> np.ndarray:
        """[n, L, D] in float32."""
        ...


class TrainedTower:
    """The tower of a model folder: patches of its backbone, or of its projector in the LLM's space.

    Raises:
        InputError: the folder is no model.
        ParamsError: `in_words` is asked of a tower that does not project patches.
    """

    def __init__(self, name: str, folder: Path, device: str, *, in_words: bool) -> None:
        self.name, self.folder = name, folder
        self._encoder: ImageEncoder = load_encoder(folder, device)
        if in_words and not self._encoder.gives_patches:
            raise ParamsError(
                f"codes.codebook words: {folder} does not project patches into the LLM's space; take a model with "
                f"train.model.head patches ({PatchProjector.__name__}), or codebook kmeans"
            )
        self.llm = dict(self._encoder.config["llm"])
        self.identity = {
            "weights": file_sha256(folder / WEIGHTS),
            "model": self._encoder.config["recipe"]["model"],
            "tokens": "projected" if in_words else "patches",
        }
        self._read = ImageTower.patch_vectors if in_words else ImageTower.patches

    def tokens(self, jpegs: Sequence[bytes]) -> np.ndarray:
        return self._encoder.encode_with(self._read, jpegs, BATCH)

    def vectors(self, jpegs: Sequence[bytes]) -> np.ndarray:
        """z_0 of each picture, [n, D] in float32."""
        return self._encoder.encode(jpegs, BATCH)


class TimmTower:
    """A timm backbone, `name` or `name@file`; its weights are fetched once by timm, or read from the file.

    Raises:
        InputError: timm cannot make it, or it does not return tokens [B, T, C].
    """

    def __init__(self, source: str, weights: Path | None, device: str) -> None:
        from timm.data.config import resolve_model_data_config
        from timm.data.transforms_factory import create_transform

        self.name, self._device = f"timm {source}", device
        backbone = source.partition("@")[0]
        try:
            model = pretrained_backbone(backbone, weights)
        except Exception as error:  # timm and the hub raise many kinds; all mean that there is no model
            raise InputError(f"codes.tower: timm {source} cannot be loaded ({type(error).__name__}: {error})") from None
        config = resolve_model_data_config(model)
        self._model: Any = model.eval().requires_grad_(False).to(device)
        self._transform: Any = create_transform(**config, is_training=False)
        with torch.inference_mode():
            tokens = self._model.forward_features(torch.zeros(1, *config["input_size"], device=device))
        if tokens.ndim != 3 or tokens.shape[-1] != self._model.num_features:
            raise InputError(f"codes.tower: timm {source} does not return tokens [B, T, C]; take a ViT")
        kept = {name: list(value) if isinstance(value, tuple) else value for name, value in sorted(config.items())}
        self.identity = {"weights": weights_sha256(model), "timm": backbone, "pictures": kept}

    @torch.inference_mode()
    def tokens(self, jpegs: Sequence[bytes]) -> np.ndarray:
        from PIL import Image

        rows = []
        for start in range(0, len(jpegs), BATCH):
            opened = [Image.open(io.BytesIO(each)).convert("RGB") for each in jpegs[start : start + BATCH]]
            x = torch.stack([self._transform(picture) for picture in opened]).to(self._device)
            patches = self._model.forward_features(x)[:, self._model.num_prefix_tokens :]
            rows.append(patches.float().cpu().numpy())
        return np.concatenate(rows)
