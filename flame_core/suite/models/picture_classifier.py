"""A picture classifier of transformers, a folder or a hub id: probabilities of its labels.

A model for several labels per picture (`problem_type: multi_label_classification`) gives a sigmoid per label, any other
a softmax over the labels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from flame_core.digest import file_sha256
from flame_core.errors import InputError
from flame_core.names import expanded
from flame_core.suite.models.transformers_clip import fetched

_PICTURES = 64


class PictureClassifier:
    """A classifier with its own processor, in float32.

    Attributes:
        labels: names of its labels.
        identity: digests of its files.

    Raises:
        InputError: the folder holds no picture classifier, or weights are missing.
        ResourceError: the hub id cannot be fetched.
    """

    def __init__(self, source: str, device: str) -> None:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        from flame_core.text.llm import quiet_transformers

        folder = expanded(source)
        if not folder.is_dir():
            folder = fetched(source)
        try:
            with quiet_transformers():
                model, report = AutoModelForImageClassification.from_pretrained(
                    folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
                )
                self._processor: Any = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{folder}: not a picture classifier that transformers can read ({error})") from None
        if missing := sorted(map(str, report["missing_keys"])):
            raise InputError(f"{folder}: weights are missing, such as {missing[0]}")
        self.identity = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
        self._model: Any = model.eval().requires_grad_(False).to(device)
        self._device = device
        names = model.config.id2label
        self.labels = [str(names[number]) for number in range(len(names))]
        self._several = model.config.problem_type == "multi_label_classification"

    @torch.inference_mode()
    def probabilities(self, pictures: Sequence[bytes]) -> np.ndarray:
        """[N, labels] in float32 of encoded pictures."""
        rows = []
        for start in range(0, len(pictures), _PICTURES):
            opened = [Image.open(io.BytesIO(each)).convert("RGB") for each in pictures[start : start + _PICTURES]]
            x = self._processor(images=opened, return_tensors="pt")["pixel_values"].to(self._device)
            logits = self._model(pixel_values=x).logits.float()
            rows.append((logits.sigmoid() if self._several else logits.softmax(dim=-1)).cpu().numpy())
        return np.concatenate(rows)
