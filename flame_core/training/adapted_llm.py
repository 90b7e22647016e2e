"""The LLM with LoRA adapters, trained with the image tower: captions as weights of words (LexVLA, arXiv 2407.17827).

A caption stands in the prompt of `text.sentence`. Its last token's vector h after the final norm gives, with the rows Z
and the means m of the lexicon, which stay as they are,

    s = n(elu(length * Z n(h) - m) + 1)

so before the first step a caption has the words that `flame lexical` found for it, all of them and not only the
heaviest. Only the adapters are trained, by `peft`; checkpoints and models hold nothing else of the LLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from flame_core.digest import json_bytes
from flame_core.errors import ComputationError, ParamsError, ResourceError
from flame_core.lexical.lexicon import Lexicon, read_lexicon
from flame_core.params import LoraParams, TextParams
from flame_core.text.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from flame_core.text.caption_source import CaptionSource, DrawnCaptions, LLMSource
from flame_core.text.caption_tokens import CaptionTokens
from flame_core.text.llm import Cut, load_decoder, load_tokenizer
from flame_core.text.sentence import SentenceTokenizer
from flame_core.text.store import Drawn
from flame_core.vision.lexical_head import word_weights

PAD = -1
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class AdaptedSamples:
    """Captions of the training samples as token ids of the LLM: the counterpart of `TrainStore` for `lora`."""

    files_per_shard = 0  # a shard's captions are read all at once

    def __init__(
        self, captions: CaptionSource, llm: LLMSource, lora: LoraParams, slots: Sequence[str], hidden: int
    ) -> None:
        self.facets, self.hidden = list(slots), hidden
        self.llm, self.text = llm, captions.text
        self._lora = lora
        self._captions = DrawnCaptions(captions, slots)
        self._tokens = SentenceTokenizer(CaptionTokens(load_tokenizer(llm.folder, llm.params)), captions.text)

    def read(self, samples: Sequence[Drawn]) -> Tensor:
        """Token ids [B, K, L] of the drawn captions, padded with `PAD` behind to the longest."""
        texts = self._captions.of(samples)
        return padded([self._tokens.encode(text).ids for text in texts]).unflatten(0, (len(samples), -1))

    def encoder(self) -> AdaptedLLM:
        """The LLM with adapters that change nothing yet."""
        return AdaptedLLM(open_llm(self.llm, self.text), read_lexicon(self.llm.lexicon), self._lora)

    def save(self, encoder: nn.Module | None, folder: Path) -> None:
        """Write the adapters in the format of `peft`."""
        if not isinstance(encoder, AdaptedLLM):
            raise TypeError("captions need the LLM whose adapters were trained on them")
        encoder.save(folder, self.llm)


def padded(sequences: Sequence[Sequence[int]]) -> Tensor:
    """Token ids [N, L], each behind its own padded with `PAD`."""
    length = max(map(len, sequences))
    return torch.tensor([[*ids, *[PAD] * (length - len(ids))] for ids in sequences])


def open_llm(source: LLMSource, text: TextParams) -> Any:
    """The LLM, frozen, up to the layer and the norm at which captions are read."""
    layer = text.sentence_layer or text.layer
    return load_decoder(
        source.folder,
        Cut(layer, final_norm=True, key="text.sentence.layer"),
        _TYPES[text.dtype],
        trust_remote_code=source.params.trust_remote_code,
    )


class AdaptedLLM(nn.Module):
    """Token ids [N, L], padded behind with `PAD`, to unit vectors of words [N, V]."""

    rows: Tensor
    mean: Tensor

    def __init__(self, llm: Any, lexicon: Lexicon, params: LoraParams) -> None:
        super().__init__()
        peft = _peft()
        _require_targets(llm, params.targets)
        self._config = peft.LoraConfig(
            r=params.rank, lora_alpha=params.alpha, target_modules=list(params.targets), lora_dropout=0.0, bias="none"
        )
        self.llm = peft.get_peft_model(llm, self._config)
        self.length = lexicon.length
        self.register_buffer("rows", lexicon.rows.clone(), persistent=False)
        self.register_buffer("mean", torch.from_numpy(lexicon.mean).float(), persistent=False)
        if params.checkpoint_activations:
            _recompute_layers(llm)

    def forward(self, ids: Tensor) -> Tensor:
        ends = (ids != PAD).sum(dim=1) - 1  # [N]
        ids = ids[:, : int(ends.max()) + 1].clamp(min=0)
        hidden = self.llm(input_ids=ids, use_cache=False).last_hidden_state  # padding comes after every token read
        read = hidden[torch.arange(len(ids), device=ids.device), ends]
        with torch.autocast(ids.device.type, enabled=False):
            t = F.normalize(read.float(), dim=-1)
            return word_weights(self.length * (t @ self.rows.float().T) - self.mean)

    def train(self, mode: bool = True) -> AdaptedLLM:
        """Never: an LLM that draws dropout would not be the one that reads the texts later."""
        return self

    def frozen_names(self) -> set[str]:
        """Names in `state_dict` of the LLM's own weights."""
        return {name for name in self.state_dict() if ".lora_" not in name}

    def save(self, folder: Path, source: LLMSource) -> None:
        """Write the adapters' weights and their config, which names the LLM and its digest."""
        from safetensors.torch import save

        weights = {
            name: weight.detach().cpu().contiguous()
            for name, weight in sorted(_peft().get_peft_model_state_dict(self.llm).items())
        }
        (folder / ADAPTER_WEIGHTS).write_bytes(save(weights))
        content = {
            "peft_type": "LORA",
            "base_model_name_or_path": source.params.name,
            "revision": source.digest,
            "r": self._config.r,
            "lora_alpha": self._config.lora_alpha,
            "lora_dropout": 0.0,
            "target_modules": sorted(self._config.target_modules or []),
            "bias": "none",
            "inference_mode": True,
        }
        (folder / ADAPTER_CONFIG).write_bytes(json_bytes(content))


def _recompute_layers(llm: Any) -> None:
    """Keep only the inputs of each layer, and run it again in backward.

    Raises:
        ComputationError: the LLM's list of layers was not found.
    """
    layers = getattr(llm, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ComputationError(
            f"{type(llm).__name__}: its list of layers was not found; set train.lora.checkpoint_activations to false"
        )
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def _require_targets(llm: nn.Module, targets: Sequence[str]) -> None:
    """Refuse names that no linear layer of the LLM has.

    Raises:
        ParamsError: names the first one, and those that there are.
    """
    known = sorted({name.rpartition(".")[2] for name, part in llm.named_modules() if isinstance(part, nn.Linear)})
    if wrong := [name for name in targets if name not in known]:
        raise ParamsError(f"train.lora.targets: the LLM has no linear layer {wrong[0]}; it has {', '.join(known)}")


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise ResourceError(
            f"a recipe with `lora` needs the Python package {error.name!r}: pip install 'flame-mlops[lora]'"
        ) from None
    return peft
