"""Captions read by the LLM with gradients, at the tokens and the layer at which `embed` reads them.

Facets are decoupled, so the first facet's vector is the same without the others: only its tokens are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.adapting.pairs import Text
from flame_core.errors import InputError
from flame_core.params import LoraParams, Reading
from flame_core.text.adapter import plain_name
from flame_core.text.attention import pack
from flame_core.text.encoder import Pass, TextEncoder
from flame_core.text.lora import adapter_files, peft_package, recompute_layers, require_targets
from flame_core.text.sentence import SENTENCE
from flame_core.text.sequence import FacetSequence

_KEY, _WHAT = "adapt_llm.lora", "adapt_llm"


class CaptionReader:
    """An LLM with new adapters, and how it reads captions.

    Attributes:
        weights: of the adapters, in float32, by the names that `peft` gives them in its files.
    """

    def __init__(self, encoder: TextEncoder, reading: Reading, lora: LoraParams, last_layers: int | None) -> None:
        """Put adapters on the encoder's LLM; their first weights are drawn from torch's random numbers.

        Raises:
            ParamsError: the LLM has no such layers.
            ResourceError: `peft` is not installed.
        """
        how = encoder.sentence_pass if reading == "sentence" else encoder.facet_pass
        if how is None:
            raise InputError("adapt_llm.reading is sentence, and text.sentence is null")
        self._encoder, self._how, self._reading, self._lora = encoder, how, reading, lora
        self.model: Any = how.model
        require_targets(self.model, lora.targets, _KEY)
        layers = _adapted_layers(how, lora, last_layers)
        self._targets = [plain_name(name) for name in layers]
        peft = peft_package(_WHAT)
        config = peft.LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, target_modules=layers, lora_dropout=0.0, bias="none"
        )
        peft.inject_adapter_in_model(config, self.model)
        if lora.checkpoint_activations:
            recompute_layers(self.model, _KEY)
        self.weights: dict[str, nn.Parameter] = {}
        for name, weight in self.model.named_parameters():
            weight.requires_grad_(".lora_" in name)
            if ".lora_" in name:
                weight.data = weight.data.float()
                self.weights[f"base_model.model.{plain_name(name).replace('.default.', '.')}"] = weight

    def read(self, texts: Sequence[Text]) -> Tensor:
        """Unit vectors [N, D] in float32 of captions, computed together."""
        sequences = [self._sequence(kind, text) for kind, text in texts]
        order = sorted(range(len(texts)), key=lambda i: (len(sequences[i]), texts[i][0], i))  # equal shapes together
        own = [sequences[i] for i in order]
        device = next(self.model.parameters()).device.type
        ids, packing = pack(own, "sdpa", device, bidirectional=self._how.bidirectional)
        packing.layer = self._how.layer
        hidden = self.model(input_ids=ids, position_ids=packing.position, packing=packing, use_cache=False)[0]
        read = hidden[0, packing.reads].float()
        t = TextEncoder.reduced(read, own) if self._reading == "sentence" else F.normalize(read, dim=-1)
        places = torch.empty(len(order), dtype=torch.long)
        places[torch.tensor(order)] = torch.arange(len(order))
        return t[places.to(t.device)]

    def files(self, llm: tuple[str, str]) -> dict[str, bytes]:
        """{name: content} of the adapters; `llm` is the LLM's name and digest."""
        return adapter_files(self.weights, llm, self._lora.rank, self._lora.alpha, self._targets)

    def _sequence(self, kind: str, text: str) -> FacetSequence:
        if self._reading == "sentence":
            return self._encoder.facets.encode(SENTENCE, text)
        whole = self._encoder.facets.encode(kind, text)
        end = whole.readout[0] + 1
        return FacetSequence(whole.ids[:end], whole.segment[:end], whole.position[:end], [end - 1])


def _adapted_layers(how: Pass, lora: LoraParams, last_layers: int | None) -> list[str]:
    """Names of the linear layers that get adapters, as the cut model has them."""
    first = 0 if last_layers is None else max(how.layer - last_layers, 0)
    found = []
    for name, part in how.model.named_modules():
        parts = plain_name(name).split(".")
        numbers = [int(each) for each in parts if each.isdecimal()]
        if isinstance(part, nn.Linear) and parts[-1] in lora.targets and (not numbers or numbers[0] >= first):
            found.append(name)
    return found
