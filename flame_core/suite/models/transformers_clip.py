"""Dual encoders of `transformers`, such as CLIP, Meta CLIP 2, SigLIP and SigLIP 2, from a folder or a hub id.

    <folder>, or <id>@<revision>

SigLIP 2 at a fixed size is a `siglip` there; `siglip2` is NaFlex, which keeps a picture's shape. Any other model that
transformers itself has is taken too if it gives one vector per picture and per text, such as ALIGN, AltCLIP or TIPSv2;
that is tried as soon as it is opened. Code from a model's folder is never run.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.digest import file_sha256
from flame_core.errors import InputError, ResourceError
from flame_core.names import expanded, require_hub_id, require_revision
from flame_core.suite.models.model import Model, NotOffered, PictureSide
from flame_core.vision.decoding import open_picture
from flame_core.vision.prepared_batches import prepared_batches

FAMILIES = ("clip", "metaclip_2", "siglip", "siglip2")  # whose towers and padding are known
_WITH_PATCHES = ("clip", "metaclip_2")  # whose patches the projection takes into the space of the texts
_PADDED = ("siglip", "siglip2")  # trained on texts that are padded to the limit, and without a mask
_PICTURES, _TEXTS = 64, 256
_TRIED = ("a picture", "a picture that is described with more words")
_APART = 1e-3  # of the numbers of one text's unit vectors
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


def text_dimensions(folder: Path) -> int | None:
    """E of the texts of a dual encoder in a folder, by its config; None if that does not say."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError):
        return None  # which is told when it is opened
    if config.model_type in _WITH_PATCHES:
        return config.projection_dim
    return config.text_config.projection_size if config.model_type == "siglip" else None


class TransformersModel(Model):
    """A dual encoder with its own processor and tokenizer, in float32.

    Raises:
        InputError: the folder holds no dual encoder of transformers, or its weights have another shape.
        ResourceError: the hub id cannot be fetched.
    """

    def __init__(self, name: str, source: str, device: str) -> None:
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        from flame_core.text.llm import quiet_transformers

        self.name, self.source, self._device = name, source, device
        folder = expanded(source)
        if not folder.is_dir():
            folder = fetched(source)
        self.identity = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
        try:
            with quiet_transformers():
                model, report = AutoModel.from_pretrained(
                    folder,
                    dtype=torch.float32,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,
                    trust_remote_code=False,
                )  # the report says which are mismatched; they are refused below, by name
                self._processor: Any = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
                self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
            if (code := own_code(folder)) and "trust_remote_code" in str(error):
                raise InputError(
                    f"{folder}: {code}, which is never run: take a model that this version of transformers has itself, "
                    f"such as one of {', '.join(FAMILIES)}, or its checkpoint for open_clip (open_clip:...)"
                ) from None
            raise InputError(f"{folder}: not a model that transformers can read ({error})") from None
        self._family: str = model.config.model_type
        if not all(callable(getattr(model, f"get_{side}_features", None)) for side in ("image", "text")):
            raise InputError(
                f"{folder}: a {self._family} model, which does not give vectors of both pictures and texts: take a "
                f"dual encoder, such as one of {', '.join(FAMILIES)}"
            )
        if missing := [*report["missing_keys"], *report.get("mismatched_keys", [])]:
            raise InputError(
                f"{folder}: weights are missing or of another shape, such as {sorted(map(str, missing))[0]}"
            )
        self._model: Any = model.eval().requires_grad_(False).to(device)
        positions = getattr(getattr(model.config, "text_config", None), "max_position_embeddings", None)
        self._limit: int = positions or self._tokenizer.model_max_length
        if self._family not in FAMILIES:
            self._limit = min(self._limit, self._tokenizer.model_max_length)
            self._require_vectors(folder)

    def _require_vectors(self, folder: Path) -> None:
        """Try a picture and two texts.

        Raises:
            InputError: they do not give a vector each, in one space, or a text's vector depends on other texts.
        """
        picture = io.BytesIO()
        Image.new("RGB", (64, 48), "gray").save(picture, "PNG")
        try:
            alone, together = (self.texts("raw", texts) for texts in (_TRIED[:1], _TRIED))
            shapes = self.pictures([picture.getvalue()]).shape, alone.shape
        except (
            AttributeError,
            IndexError,
            KeyError,
            NotImplementedError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise InputError(
                f"{folder}: its {self._family} model cannot be asked for vectors of pictures and texts "
                f"({type(error).__name__}: {error})"
            ) from None
        if shapes[0] != shapes[1] or len(shapes[0]) != 2:
            raise InputError(
                f"{folder}: its {self._family} model gives arrays {shapes[0]} for a picture and {shapes[1]} for a "
                "text; a baseline gives one vector each, in one space"
            )
        if not np.allclose(alone[0], together[0], atol=_APART):
            raise InputError(
                f"{folder}: its {self._family} model gives a text another vector beside a longer text, so its results "
                "would depend on how texts are cut into batches: take another model or another version of transformers"
            )

    def pictures(self, pictures: Sequence[bytes]) -> np.ndarray:
        """Projected and normalised vectors of pictures, prepared by the model's own processor."""
        return self._over_pictures(
            pictures, lambda x: F.normalize(_tensor(self._model.get_image_features(**x)), dim=-1)
        )

    def features(self, pictures: Sequence[bytes]) -> np.ndarray:
        """The vision tower's pooled features, before the projection; of a model not known here, the vectors."""
        if self._family not in FAMILIES:
            return self.pictures(pictures)
        return self._over_pictures(pictures, lambda x: self._model.vision_model(**x).pooler_output)

    def patches(self, pictures: Sequence[bytes]) -> np.ndarray:
        """CLIP's patch tokens after the final norm and the projection. SigLIP pools with attention and has none."""
        if self._family not in FAMILIES:
            raise NotOffered(f"where {self._family} has its patches is not known here")
        if self._family not in _WITH_PATCHES:
            raise NotOffered(
                f"{self._family} pools patches with attention, so single patches have no place among texts"
            )

        def read(x: dict[str, Tensor]) -> Tensor:
            tokens = self._model.vision_model.post_layernorm(self._model.vision_model(**x).last_hidden_state[:, 1:])
            vectors = F.normalize(self._model.visual_projection(tokens), dim=-1)
            side = round(vectors.shape[1] ** 0.5)
            return vectors.unflatten(1, (side, side))

        return self._over_pictures(pictures, read)

    def picture_side(self) -> PictureSide:
        """The vision tower with its projection, if it has one."""
        if self._family not in FAMILIES:
            raise NotOffered(f"how {self._family} reads pixels is not known here")
        if self._family == "siglip2":
            raise NotOffered("NaFlex reads pictures of any shape, and a training gives it squares")
        vision = self._model.config.vision_config
        projection = getattr(self._model, "visual_projection", None)
        return PictureSide(
            _Pictures(self._model.vision_model, projection or nn.Identity()).eval(),
            size=vision.image_size,
            dim=projection.out_features if projection is not None else vision.hidden_size,
            mean=tuple(self._processor.image_mean),
            std=tuple(self._processor.image_std),
        )

    @torch.inference_mode()
    def texts(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Normalised vectors; longer texts are cut at the model's limit, as usual."""
        rows = []
        for start in range(0, len(texts), _TEXTS):
            batch = self._tokenizer(
                list(texts[start : start + _TEXTS]),
                padding="max_length" if self._family in _PADDED else True,
                truncation=True,
                max_length=self._limit,
                return_tensors="pt",
            ).to(self._device)
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask") if name in batch}
            if self._family in _PADDED:
                inputs.pop("attention_mask", None)
            rows.append(F.normalize(_tensor(self._model.get_text_features(**inputs)), dim=-1).cpu().numpy())
        return np.concatenate(rows)

    @torch.inference_mode()
    def _over_pictures(self, pictures: Sequence[bytes], read: Any) -> np.ndarray:
        batches = prepared_batches(pictures, _PICTURES, open_picture, self._processed, self._device)
        return np.concatenate([read(x).float().cpu().numpy() for x in batches])

    def _processed(self, opened: list[Image.Image]) -> dict[str, Tensor]:
        return dict(self._processor(images=opened, return_tensors="pt"))


class _Pictures(nn.Module):
    """Normalised pictures [b, 3, S, S] to unit vectors [b, E]."""

    def __init__(self, vision: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.vision, self.projection = vision, projection

    def forward(self, pictures: Tensor) -> Tensor:
        return F.normalize(self.projection(self.vision(pixel_values=pictures).pooler_output).float(), dim=-1)


def _tensor(output: Any) -> Tensor:
    """Features as a tensor; some versions of transformers return an output object that holds it."""
    return output if isinstance(output, Tensor) else output.pooler_output


def own_code(folder: Path) -> str | None:
    """Which code of its own a model's folder names; None if it names none."""
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        with suppress(OSError, ValueError, AttributeError):
            if classes := json.loads((folder / name).read_text("utf-8")).get("auto_map"):
                return f"{name} names code of the model's own ({next(iter(classes.values()))})"
    return None


def fetched(source: str) -> Path:
    from huggingface_hub import snapshot_download

    repo, _, revision = source.partition("@")
    try:
        require_hub_id(repo)
        require_revision(revision or "main")
    except ValueError as error:
        raise InputError(f"transformers:{source} is no folder here, and {error}") from None
    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=_FILES))
    except Exception as error:  # the hub client raises many kinds; all mean the same here
        raise ResourceError(
            f"transformers:{source} is no folder here, and the hub did not give it ({type(error).__name__}: {error})"
        ) from None
