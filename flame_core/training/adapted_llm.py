"""The LLM with LoRA adapters, trained with the image tower: captions as weights of words (LexVLA, arXiv 2407.17827).

A caption stands in the prompt of `text.sentence`. Its last token's vector h after the final norm gives, with the rows Z
and the means m of the lexicon, which stay as they are,

    s = n(elu(length * Z n(h) - m) + 1)

so before the first step a caption has the words that `flame lexical` found for it, all of them and not only the
heaviest. Only the adapters are trained, by `peft`; checkpoints and models hold nothing else of the LLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.lexical.lexicon import Lexicon, read_lexicon
from flame_core.params import LoraParams, TextParams
from flame_core.text.caption_source import CaptionSource, DrawnCaptions, LLMSource
from flame_core.text.caption_tokens import CaptionTokens
from flame_core.text.llm import Cut, load_decoder, load_tokenizer
from flame_core.text.lora import adapter_files, peft_package, recompute_layers, require_targets
from flame_core.text.sentence import SentenceTokenizer
from flame_core.text.store import Drawn
from flame_core.vision.lexical_head import word_weights

PAD = -1
_KEY, _WHAT = "train.lora", "a recipe with `lora`"
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class AdaptedSamples:
    """Captions of the training samples as token ids of the LLM: the counterpart of `TrainStore` for `lora`."""

    files_per_shard = 0  # captions lie in memory

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
        return padded([each.ids for each in self._tokens.encode_all(texts)]).unflatten(0, (len(samples), -1))

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
        peft = peft_package(_WHAT)
        require_targets(llm, params.targets, _KEY)
        self._config = peft.LoraConfig(
            r=params.rank, lora_alpha=params.alpha, target_modules=list(params.targets), lora_dropout=0.0, bias="none"
        )
        self.llm = peft.get_peft_model(llm, self._config)
        self.length = lexicon.length
        self.register_buffer("rows", lexicon.rows.clone(), persistent=False)
        self.register_buffer("mean", torch.from_numpy(lexicon.mean).float(), persistent=False)
        if params.checkpoint_activations:
            recompute_layers(llm, _KEY)

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
        weights = peft_package(_WHAT).get_peft_model_state_dict(self.llm)
        llm = source.params.name, source.digest
        targets = list(self._config.target_modules or [])
        for name, content in adapter_files(weights, llm, self._config.r, self._config.lora_alpha, targets).items():
            (folder / name).write_bytes(content)
