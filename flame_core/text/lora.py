"""LoRA adapters on an LLM with `peft`, for whatever trains them: the package, the layers, and the two files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flame_core.digest import json_bytes
from flame_core.errors import ComputationError, ParamsError, ResourceError
from flame_core.text.llm_adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS


def peft_package(what: str) -> Any:
    """The module `peft`, which `what` needs.

    Raises:
        ResourceError: it is not installed.
    """
    try:
        import peft
    except ModuleNotFoundError as error:
        raise ResourceError(
            f"{what} needs the Python package {error.name!r}: pip install 'flame-mlops[lora]'"
        ) from None
    return peft


def require_targets(llm: nn.Module, targets: Sequence[str], key: str) -> None:
    """Refuse names that no linear layer of the LLM has; `key` is that of the params, such as train.lora.

    Raises:
        ParamsError: names the first one, and those that there are.
    """
    names = [name.removesuffix(".inner") for name, part in llm.named_modules() if isinstance(part, nn.Linear)]
    known = sorted({name.rpartition(".")[2] for name in names})
    if wrong := [name for name in targets if name not in known]:
        raise ParamsError(f"{key}.targets: the LLM has no linear layer {wrong[0]}; it has {', '.join(known)}")


def recompute_layers(llm: nn.Module, key: str) -> None:
    """Keep only the inputs of each layer, and run it again in backward.

    Raises:
        ComputationError: the LLM's list of layers was not found.
    """
    layers = getattr(llm, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ComputationError(
            f"{type(llm).__name__}: its list of layers was not found; set {key}.checkpoint_activations to false"
        )
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def adapter_files(
    weights: Mapping[str, Tensor], llm: tuple[str, str], rank: int, alpha: float, targets: Sequence[str]
) -> dict[str, bytes]:
    """{name: content} of weights and config as `peft` reads them; `llm` is the LLM's name and digest."""
    from safetensors.torch import save

    content = {
        "peft_type": "LORA",
        "base_model_name_or_path": llm[0],
        "revision": llm[1],
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(targets),
        "bias": "none",
        "inference_mode": True,
    }
    own = {name: weight.detach().cpu().contiguous() for name, weight in sorted(weights.items())}
    return {ADAPTER_WEIGHTS: save(own), ADAPTER_CONFIG: json_bytes(content)}
