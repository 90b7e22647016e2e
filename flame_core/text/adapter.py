"""LoRA adapters, as the LLM that reads texts later gets them: from the two files of `peft`.

    y = W x + alpha / rank * B A x

Reading needs no `peft`. Those of a model are added while `on` is open, so the LLM's weights keep their bytes, and one
LLM serves models with different adapters and models without. Those of a run (`flame adapt-llm`) are merged into the
weights when the LLM is loaded, and cost nothing afterwards; the files of the LLM keep their bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flame_core.absent_outs import making
from flame_core.errors import InputError
from flame_core.text.llm_adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS

_BEFORE, _DOWN, _UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Adapter:
    """Pairs A [r, in] and B [out, r] by the name of the linear layer that they belong to.

    Attributes:
        llm: name and digest of the LLM that they were trained on.
        scale: alpha / rank.
        pairs: by layer.
    """

    llm: tuple[str, str]
    scale: float
    pairs: dict[str, tuple[Tensor, Tensor]]

    @classmethod
    def read(cls, folder: Path) -> Adapter:
        """The adapters in a model's folder.

        Raises:
            InputError: a file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            config = json.loads((folder / ADAPTER_CONFIG).read_text("utf-8"))
            weights = load_file(folder / ADAPTER_WEIGHTS)
            names = [name.removesuffix(_DOWN) for name in weights if name.endswith(_DOWN)]
            pairs = {
                name.removeprefix(_BEFORE): (weights[name + _DOWN].float(), weights[name + _UP].float())
                for name in names
            }
            llm = str(config["base_model_name_or_path"]), str(config["revision"])
            return cls(llm, config["lora_alpha"] / config["r"], pairs)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"{folder}: its adapters are damaged ({error}); run `{making(folder)}`") from None

    def require_llm(self, digest: str) -> None:
        """Refuse an LLM with other files than the one that the adapters were trained on.

        Raises:
            InputError: names both.
        """
        name, own = self.llm
        if digest != own:
            raise InputError(
                f"these adapters belong to the LLM {name} ({own[:12]}), and the LLM here has other files "
                f"({digest[:12]}): fetch that LLM, or train the adapters with this one"
            )

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """The LLM reads with the adapters while this is open.

        Raises:
            InputError: it lacks a layer of theirs, or has it in another size.
        """
        handles: list[Any] = []
        try:
            for layer, down, up in self._layers(model):
                device = layer.weight.device
                handles.append(layer.register_forward_hook(_Added(down.to(device), up.to(device) * self.scale)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def merge(self, model: nn.Module) -> None:
        """Add B A to the weights of a model that is not cut yet, or is cut behind the last layer of theirs.

        Raises:
            InputError: it lacks a layer of theirs, or has it in another size.
        """
        for layer, down, up in self._layers(model):
            added = self.scale * (up @ down).to(layer.weight.device)
            layer.weight.copy_((layer.weight.float() + added).to(layer.weight.dtype))

    def _layers(self, model: nn.Module) -> Iterator[tuple[nn.Linear, Tensor, Tensor]]:
        """Each layer of the model with its A and B."""
        layers = {plain_name(name): part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
        for name, (down, up) in self.pairs.items():
            layer = layers.get(name)
            if layer is None or (layer.in_features, layer.out_features) != (down.shape[1], up.shape[0]):
                raise InputError(
                    f"the LLM has no layer {name} from {down.shape[1]} to {up.shape[0]} numbers; these adapters belong "
                    f"to the LLM {self.llm[0]}"
                )
            yield layer, down, up


@dataclass(frozen=True)
class _Added:
    """A forward hook that adds B A x to a layer's output, computed in float32."""

    down: Tensor
    up: Tensor

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        with torch.autocast(output.device.type, enabled=False):
            return output + (inputs[0].float() @ self.down.T @ self.up.T).to(output.dtype)


def plain_name(name: str) -> str:
    """A layer's name without the parts around it in the last block (`last_block.AtReadTokens`)."""
    return ".".join(part for part in name.split(".") if part != "inner")
