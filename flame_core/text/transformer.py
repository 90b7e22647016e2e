"""A text transformer trained together with the image tower: CLIP's text side, for a fair baseline (arXiv 2103.00020).

It reads captions with the LLM's tokenizer, whose file is copied into the model folder, but without the LLM's weights.
It has causal blocks, is read at an additional end token, and ends in a linear map into the LLM's space, so image tower,
projector and loss are those of a FLAME recipe.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.absent_outs import bringing
from flame_core.errors import InputError
from flame_core.files.weights import save_weights
from flame_core.markdown import code_span
from flame_core.model_files import CONFIG, TEXT_WEIGHTS
from flame_core.params import Params, TextTowerParams, TrainParams
from flame_core.settings import settings
from flame_core.text.caption_source import CaptionSource, DrawnCaptions
from flame_core.text.facets import REFERENCE
from flame_core.text.side import CardLines, OpenEncoder, Packed
from flame_core.text.store import TOKENIZER, Drawn, TextStore

PAD = -1
_BATCH = 256


class Captions:
    """Token ids of texts, [N, L] with L = `max_tokens`: cut, ended by an additional id, and padded with `PAD`."""

    def __init__(self, tokenizer: Path, params: TextTowerParams) -> None:
        from tokenizers import Tokenizer

        if not tokenizer.is_file():
            raise InputError(f"{tokenizer} is missing: {bringing(tokenizer.parent)}")
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._length = params.max_tokens
        self.end = self._tokenizer.get_vocab_size()

    def ids(self, texts: Sequence[str]) -> np.ndarray:
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        rows = np.full((len(texts), self._length), PAD, dtype=np.int64)
        for row, each in zip(rows, encoded, strict=True):
            own = [*each.ids[: self._length - 1], self.end]
            row[: len(own)] = own
        return rows


class CaptionSamples:
    """Captions of the training samples, by the same slots as the store's facets: the counterpart of `TrainStore`."""

    files_per_shard = 0  # captions lie in memory

    def __init__(self, source: CaptionSource, tower: TextTowerParams, facets: Sequence[str], hidden: int) -> None:
        self.facets, self.hidden = list(facets), hidden
        self._source, self._tower = source, tower
        self._tokens = Captions(source.tokenizer, tower)
        self._captions = DrawnCaptions(source, facets)

    def encoder(self) -> TextTower:
        """The text tower, randomly initialised."""
        return TextTower(self._tower, self._tokens.end + 1, self.hidden)

    def save(self, encoder: nn.Module | None, folder: Path) -> None:
        """Write the trained tower's weights and tokenizer."""
        if encoder is None:
            raise ValueError("captions need the tower that was trained on them")
        save_weights(encoder, folder / TEXT_WEIGHTS)
        shutil.copyfile(self._source.tokenizer, folder / TOKENIZER)

    def read(self, samples: Sequence[Drawn]) -> Tensor:
        """Token ids [B, K, L] of the captions that the samples' drawn facets belong to."""
        return torch.from_numpy(self._tokens.ids(self._captions.of(samples))).unflatten(0, (len(samples), -1))


class TextTower(nn.Module):
    """Token ids [N, L] to unit vectors [N, D]."""

    def __init__(self, params: TextTowerParams, vocabulary: int, hidden: int) -> None:
        super().__init__()
        width = params.width
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(params.max_tokens, width))
        layer = nn.TransformerEncoderLayer(
            width, params.heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, params.depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.projection = nn.Linear(width, hidden, bias=False)
        for weight, deviation in ((self.tokens.weight, 0.02), (self.positions, 0.01)):
            nn.init.normal_(weight, std=deviation)
        for weight in self.blocks.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=width**-0.5)  # otherwise all layers would start as copies of one

    def forward(self, ids: Tensor) -> Tensor:
        ends = (ids != PAD).sum(dim=1) - 1  # [N]
        ids = ids[:, : int(ends.max()) + 1]
        x = self.tokens(ids.clamp(min=0)) + self.positions[: ids.shape[1]]  # [N, L, C]
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], device=x.device, dtype=x.dtype)
        x = self.blocks(x, mask=mask, is_causal=True)  # padding comes after every token that is read
        read = x[torch.arange(len(ids), device=ids.device), ends]
        return F.normalize(self.projection(read).float(), dim=-1)


class TrainedTexts:
    """The text side of a model with its own text tower: a text has one vector, repeated for each facet."""

    in_words, by_facet = False, False

    def __init__(self, model: Path, device: str) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            config = json.loads((model / CONFIG).read_text("utf-8"))
            params = TextTowerParams.model_validate(config["recipe"]["text_tower"])
            self._captions = Captions(model / TOKENIZER, params)
            tower = TextTower(params, self._captions.end + 1, config["hidden"])
            tower.load_state_dict(load_file(model / TEXT_WEIGHTS))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise InputError(f"{model} is not a usable model ({error}); run `flame train` for it") from error
        self._tower = tower.to(device).eval()
        self._facets: dict[str, int] = config["text_facets"]  # K by kind
        self._device = device
        self._model = model
        self.dim: int = config["hidden"]
        self.cut_texts: dict[str, int] = {}  # it reads texts to the length that it was trained on

    @classmethod
    def of_model(cls, model: Path, store: TextStore, encoder: OpenEncoder) -> TrainedTexts:
        """The text side of a model folder; it needs neither the store nor the LLM."""
        return cls(model, settings().torch_device())

    @classmethod
    def of_package(cls, package: Path, values: Mapping[str, Any], encoder: OpenEncoder) -> TrainedTexts:
        """The text side of a served model."""
        return cls(package, settings().torch_device())

    @classmethod
    def required(cls) -> Sequence[str]:
        """Its weights and its tokenizer."""
        return TEXT_WEIGHTS, TOKENIZER

    @classmethod
    def card(cls, params: Params, recipe: TrainParams) -> CardLines:
        """What a model card says about it."""
        tower = recipe.text_tower or TextTowerParams()
        return CardLines(
            model="An image encoder and a text encoder that were trained together, from scratch.",
            texts=f"a transformer of width {tower.width} and depth {tower.depth}, trained along and included; it reads "
            f"{tower.max_tokens} tokens of the tokenizer of {code_span(params.llm.source)}",
            reader="the text tower",
            limit=f"Texts are cut at {tower.max_tokens} tokens.",
        )

    def save(self) -> Packed:
        """Its weights and its tokenizer."""
        return Packed({name: self._model / name for name in self.required()})

    def count(self, kind: str) -> int:
        """K of a kind, as if the vectors were the LLM's facets."""
        return 1 if kind.endswith(REFERENCE) else self._facets[kind]

    def lookup(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors [N, K of the kind, D] in float32, all K equal; computed, since no texts are stored."""
        return self.encode(kind, texts)

    @torch.inference_mode()
    def encode(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors [N, K of the kind, D] in float32, all K equal."""
        ids = torch.from_numpy(self._captions.ids(texts))
        t = torch.cat([self._tower(part.to(self._device)).cpu() for part in ids.split(_BATCH)])
        return np.repeat(t.numpy()[:, None], self.count(kind), axis=1)
