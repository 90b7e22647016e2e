"""A trained tower in use: loaded from a model folder, and from pictures' bytes to unit vectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flame_core.errors import InputError
from flame_core.files.weights import require_finite
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.params import Precision
from flame_core.text.jobs import facet_count
from flame_core.vision.lexical_head import LexicalHead
from flame_core.vision.prepared_batches import prepared_batches
from flame_core.vision.projector import PatchProjector
from flame_core.vision.tower import ImageTower, tower_params
from flame_core.vision.views import evaluation_picture, normalised


class ImageEncoder:
    """A trained tower for evaluation and serving: image files' bytes in, unit vectors out.

    With `precision` bfloat16 the tower computes under autocast.
    """

    def __init__(
        self, tower: ImageTower, config: dict[str, Any], device: str, precision: Precision = "float32"
    ) -> None:
        self.config, self.precision = config, precision
        self._tower = tower.to(device).eval()
        self._size: int = config["recipe"]["model"]["image_size"]
        self._device = torch.device(device)  # a GPU may have a number

    @property
    def gives_patches(self) -> bool:
        """Whether the tower has patches on a grid, each with a vector in the space of the texts."""
        grid = getattr(getattr(self._tower.backbone, "patch_embed", None), "grid_size", None)
        return (
            not self._tower.gives_map
            and grid is not None
            and isinstance(self._tower.projector, PatchProjector | LexicalHead)
        )

    def encode(self, jpegs: Sequence[bytes], batch_size: int = 128) -> np.ndarray:
        """z_0 of each picture, [N, D] in float32."""
        return self.encode_facets(jpegs, batch_size)[:, 0]

    def encode_facets(self, jpegs: Sequence[bytes], batch_size: int = 128) -> np.ndarray:
        """z_0 and the F facets of each picture, [N, 1 + F, D] in float32."""
        return self.encode_with(ImageTower.z, jpegs, batch_size)

    @torch.inference_mode()
    def encode_with(
        self, read: Callable[[ImageTower, Tensor], Tensor], jpegs: Sequence[bytes], batch_size: int = 128
    ) -> np.ndarray:
        """The results of `read`, called with the tower and normalised pictures [B, 3, H, W], for all, in float32."""
        torch.set_num_threads(self.config["recipe"]["cpu_threads"])
        show = partial(evaluation_picture, size=self._size)
        rows = []
        for pictures in prepared_batches(jpegs, batch_size, show, torch.stack, self._device):
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                found = read(self._tower, normalised(pictures))
            rows.append(found.float().to("cpu", non_blocking=True))
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return np.concatenate([row.numpy() for row in rows])


def load_encoder(model: Path, device: str, precision: Precision = "float32") -> ImageEncoder:
    """The encoder in a model folder.

    Raises:
        InputError: a file is missing, or the weights do not fit the config.
    """
    tower, config = load_tower(model)
    return ImageEncoder(tower, config, device, precision)


def load_tower(model: Path) -> tuple[ImageTower, dict[str, Any]]:
    """The trained tower of a model folder in evaluation mode, such as a teacher's, and the model's config.

    Raises:
        InputError: a file is missing, or the weights do not fit the config.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((model / CONFIG).read_text("utf-8"))
        facets = facet_count(config["facets"])
        weights = load_file(model / WEIGHTS)
        require_finite(weights)
        params = tower_params(config)
        words = len(weights["projector.codebook"]) if params.head == "lexical" else 0
        dims = len(weights["connector.output.weight"]) if params.connector is not None else None
        tower = ImageTower(params, config.get("dim", config["hidden"]), facets, words, dims)
        tower.load_state_dict(weights)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{model} is not a usable model ({error}); run `flame train` for it") from error
    return tower.eval(), config
