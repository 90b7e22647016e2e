"""The prompt head: a sentence vector [B, D] to n prompts [B, n, H] that make the frozen LLM write that sentence.

    c = dropout(gelu(W_1 (t - mean) / deviation))        [B, W]
    p = scale * W_3 tanh(W_2 c in n parts)               [B, n, H]

`mean` and `deviation` [D] are those of the training captions' vectors, and `scale` is the root mean square of the LLM's
input embeddings, so that prompts start where the LLM's own input lies. A loaded head is a reference: it stays frozen
and in evaluation mode whatever is done to the module that holds it, so two calls give the same bits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from flame_core.digest import json_bytes
from flame_core.errors import InputError
from flame_core.files.weights import save_weights

HEAD, CONFIG = "head.safetensors", "config.json"
_LEAST_DEVIATION = 1e-6
_OUTPUT_GAIN = 2.0  # makes up for GELU and tanh, after which numbers are about half as large


class PromptHeadConfig(BaseModel):
    """What a head is, beside its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: int = Field(ge=1, description="n, prompts per caption")
    vector: int = Field(ge=1, description="D, numbers of a sentence vector")
    hidden: int = Field(ge=1, description="H, numbers of the LLM's input vectors")
    width: int = Field(ge=1, description="W, numbers of c and of each part of it")
    scale: float = Field(gt=0, description="of the prompts")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    llm: str = Field(description="digest of the LLM's files")
    llm_name: str
    template: str = Field(description="text around prompts and caption")
    max_tokens: int = Field(ge=1, description="of a caption; longer ones were cut")
    source: dict[str, Any] = Field(default={}, description="which vectors it was trained on")


class PromptHead(nn.Module):
    """Sentence vectors to prompts; frozen for good once `freeze` was called."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: PromptHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.frozen = False
        self.register_buffer("mean", torch.zeros(config.vector))
        self.register_buffer("deviation", torch.ones(config.vector))
        self.sentence = nn.Sequential(_linear(config.vector, config.width, 1.0), nn.GELU(), nn.Dropout(config.dropout))
        self.parts = _linear(config.width, config.prompts * config.width, 1.0)
        self.output = _linear(config.width, config.hidden, _OUTPUT_GAIN)

    def standardise(self, vectors: Tensor) -> None:
        """Take mean and deviation of the vectors [N, D] that it will be trained on."""
        exact = vectors.double()
        self.mean.copy_(exact.mean(dim=0))
        self.deviation.copy_(exact.std(dim=0, correction=0).clamp(min=_LEAST_DEVIATION))

    def sentences(self, t: Tensor) -> Tensor:
        """The c [B, W] of sentence vectors [B, D]."""
        return self.sentence((t.to(self.mean) - self.mean) / self.deviation)

    def prompts_of(self, c: Tensor) -> Tensor:
        """Prompts [B, n, H] of c [B, W]."""
        parts = torch.tanh(self.parts(c)).unflatten(-1, (self.config.prompts, self.config.width))
        return self.config.scale * self.output(parts)

    def forward(self, t: Tensor) -> Tensor:
        """Prompts [B, n, H] of sentence vectors [B, D]."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.prompts_of(self.sentences(t))

    def freeze(self) -> PromptHead:
        """Make it a reference: evaluation mode and no gradients from now on."""
        self.frozen = True
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> PromptHead:
        """Change the mode, unless it is frozen."""
        return super().train(mode and not self.frozen)

    def require_llm(self, digest: str, name: str) -> None:
        """Refuse another LLM than that for which the prompts were trained.

        Raises:
            InputError: it is another one; names both.
        """
        if digest != self.config.llm:
            raise InputError(
                f"these prompts are for {self.config.llm_name} ({self.config.llm[:12]}), and the LLM is {name} "
                f"({digest[:12]}): take that LLM, or run `flame prompts` again"
            )

    def save(self, folder: Path) -> None:
        """Write `head.safetensors` and `config.json`."""
        save_weights(self, folder / HEAD)
        (folder / CONFIG).write_bytes(json_bytes(self.config.model_dump()))

    @classmethod
    def load(cls, folder: Path) -> PromptHead:
        """The head of a folder, frozen.

        Raises:
            InputError: it is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            head = cls(PromptHeadConfig.model_validate(json.loads((folder / CONFIG).read_text("utf-8"))))
            head.load_state_dict(load_file(folder / HEAD))
        except FileNotFoundError as error:
            raise InputError(f"{error.filename or folder} is missing: run `flame prompts` first") from None
        except (OSError, ValueError, RuntimeError, SafetensorError, ValidationError) as error:
            said = str(error).splitlines()[0]
            raise InputError(f"{folder}: its prompt head is damaged ({said}); run `flame prompts` again") from None
        return head.freeze()


def _linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """A layer whose outputs are `gain` times as large as its inputs."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=gain / inputs**0.5)
    nn.init.zeros_(layer.bias)
    return layer
