"""Layers behind the frozen LLM that learn: stored vectors of texts into the space of the pictures.

ShareLock (arXiv 2410.07173) has them only here, behind the LLM; SAIL (arXiv 2412.04616) on both sides. Their weights
are a part of the model, so every text passes through them: in training, evaluation, queries and served models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.errors import InputError
from flame_core.files.weights import save_weights
from flame_core.gated_layer import Gated
from flame_core.model_files import CONFIG, TEXT_WEIGHTS
from flame_core.params import Params, TextProjectionParams, TrainParams
from flame_core.text.frozen_texts import FacetTexts, FrozenTexts, SentenceTexts
from flame_core.text.side import CardLines, OpenEncoder, Packed
from flame_core.text.store import Drawn, TextStore, TrainStore

_BATCH = 4096


class TextProjection(nn.Module):
    """Vectors of texts [N, D] to unit vectors [N, E]; D is the LLM's, E that of the pictures."""

    def __init__(self, params: TextProjectionParams, width: int) -> None:
        super().__init__()
        dim = params.dim or width
        if params.kind == "gated":
            self.layers: nn.Module = Gated(width, params.hidden, dim)
            return
        parts: list[nn.Module] = []
        for _ in range(params.layers - 1):
            parts += [nn.Linear(width, params.hidden), nn.LayerNorm(params.hidden), nn.ReLU()]
            parts += [nn.Dropout(params.dropout)] if params.dropout else []
            width = params.hidden
        self.layers = nn.Sequential(*parts, nn.Linear(width, dim))

    def forward(self, t: Tensor) -> Tensor:
        return F.normalize(self.layers(t).float(), dim=-1)


class ProjectedSamples:
    """The training samples' stored vectors, and the layers that a training learns for them."""

    def __init__(self, store: TrainStore, params: TextProjectionParams) -> None:
        self.facets, self.files_per_shard = store.facets, store.files_per_shard
        self.hidden = params.dim or store.hidden
        self._store, self._params = store, params

    def read(self, samples: Sequence[Drawn]) -> Tensor:
        """Vectors [b, K, D] of the LLM."""
        return self._store.read(samples)

    def encoder(self) -> TextProjection:
        """The layers, randomly initialised."""
        return TextProjection(self._params, self._store.hidden)

    def save(self, encoder: nn.Module | None, folder: Path) -> None:
        """Write the trained layers."""
        assert encoder is not None
        save_weights(encoder, folder / TEXT_WEIGHTS)


class ProjectedTexts:
    """Texts of the frozen LLM behind the layers of a model."""

    in_words = False

    def __init__(self, texts: FrozenTexts, model: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            config = json.loads((model / CONFIG).read_text("utf-8"))
            params = TextProjectionParams.model_validate(config["recipe"]["text_projection"])
            layers = TextProjection(params, config["hidden"])
            layers.load_state_dict(load_file(model / TEXT_WEIGHTS))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise InputError(f"{model} is not a usable model ({error}); run `flame train` for it") from error
        self.dim = params.dim or config["hidden"]
        self._texts, self._layers, self._model = texts, layers.eval(), model

    @classmethod
    def of_model(cls, model: Path, store: TextStore, encoder: OpenEncoder) -> Self:
        """Texts of the store, and the model's own layers."""
        return cls(_reading(model).of_model(model, store, encoder), model)

    @classmethod
    def of_package(cls, package: Path, values: Mapping[str, Any], encoder: OpenEncoder) -> Self:
        """Texts of the LLM, and the package's layers."""
        return cls(_reading(package).of_package(package, values, encoder), package)

    @classmethod
    def required(cls) -> Sequence[str]:
        """The layers."""
        return (TEXT_WEIGHTS,)

    @property
    def cut_texts(self) -> Mapping[str, int]:
        """{benchmark: number of its texts whose end is not read}."""
        return self._texts.cut_texts

    @property
    def by_facet(self) -> bool:
        """As of the texts behind the layers."""
        return self._texts.by_facet

    def count(self, kind: str) -> int:
        """K of a kind: how many vectors a text has."""
        return self._texts.count(kind)

    def lookup(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors [N, K, E] of texts in the store.

        Raises:
            InputError: names a text that is not in the store.
        """
        return self._projected(self._texts.lookup(kind, texts))

    def encode(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors [N, K, E] of any texts; the LLM is loaded if it is needed."""
        return self._projected(self._texts.encode(kind, texts))

    def save(self) -> Packed:
        """The layers, and what the LLM's vectors need."""
        own = self._texts.save()
        return Packed({**own.files, TEXT_WEIGHTS: self._model / TEXT_WEIGHTS}, own.values)

    @classmethod
    def card(cls, params: Params, recipe: TrainParams) -> CardLines:
        """What a model card says about it."""
        own = (SentenceTexts if recipe.reading == "sentence" else FacetTexts).card(params, recipe)
        return CardLines(
            model="An image encoder and layers behind a frozen large language model, which were trained together.",
            texts=f"{own.texts}, through layers that were trained along and are included (`{TEXT_WEIGHTS}`)",
            reader=own.reader,
            limit=own.limit,
        )

    @torch.inference_mode()
    def _projected(self, t: np.ndarray) -> np.ndarray:
        flat = torch.from_numpy(t.reshape(-1, t.shape[-1]))
        found = torch.cat([self._layers(part) for part in flat.split(_BATCH)]) if len(flat) else flat[:, : self.dim]
        return found.numpy().reshape(*t.shape[:-1], self.dim)


def _reading(model: Path) -> type[FrozenTexts]:
    try:
        recipe = json.loads((model / CONFIG).read_text("utf-8"))["recipe"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{model} is not a usable model ({error}); run `flame train` for it") from error
    return SentenceTexts if recipe.get("reading") == "sentence" else FacetTexts
