"""The adapters with which a run's LLM reads texts (`flame adapt-llm`): where they are, and whether they fit the run.

The record of an LLM, in manifests of stores and configs of models, has their digest beside that of the LLM's files. So
vectors of the LLM with and without adapters, or with different ones, are different spaces by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flame_core import gates
from flame_core.absent_outs import bringing, making
from flame_core.digest import file_sha256, json_bytes, value_digest
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.verification import read_object, verify

ADAPTER_WEIGHTS, ADAPTER_CONFIG = ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
ADAPTER = "adapter"  # in the record of an LLM: digest of its adapters
PACKED = "llm_adapter"  # folder of a packaged model that holds them
MANIFEST = "manifest.json"  # of data/llm-adapter: what the adapters follow from


def adapter_digest(folder: Path) -> str:
    """Digest of the adapters in a folder.

    Raises:
        InputError: there are none.
    """
    if missing := [name for name in ADAPTER_FILES if not (folder / name).is_file()]:
        raise InputError(f"{folder / missing[0]} is missing: {bringing(folder)}")
    return value_digest({name: file_sha256(folder / name) for name in ADAPTER_FILES})


def require_adapter(layout: Layout, origin: Mapping[str, Any]) -> str:
    """The digest of this run's adapters, verified.

    Args:
        layout: of the run.
        origin: what they must follow from (`adapting.origin`).

    Raises:
        InputError: they are missing, damaged, or follow from something else, such as another LLM or other captions.
        GateError: they failed a check.
    """
    folder = layout.llm_adapter
    gates.require(folder)
    verify({folder: ["*"]})
    manifest = read_object(folder, MANIFEST)
    wrong = [name for name, own in json.loads(json_bytes(origin)).items() if manifest.get(name) != own]
    if wrong:
        raise InputError(
            f"{folder}: its adapters were trained with other values of {' and '.join(wrong)}; run `{making(folder)}`"
        )
    return adapter_digest(folder)


def expected_adapter(params: Params, layout: Layout, made: Mapping[str, Any]) -> str | None:
    """The adapter's digest that a store of this run has in its LLM's record `made`; None: none.

    Trainings read the store and need no adapters, so if these are not there, any are right.
    """
    if params.adapt_llm is None:
        return None
    if not (layout.llm_adapter / ADAPTER_CONFIG).is_file() and made.get(ADAPTER):
        return made[ADAPTER]
    return adapter_digest(layout.llm_adapter)


def packed_adapter(package: Path, llm: Mapping[str, Any]) -> Path | None:
    """The folder of a packaged model's adapters; None if the record `llm` of its LLM has none.

    Raises:
        InputError: they are missing, or others than those that the model was trained against.
    """
    if (expected := llm.get(ADAPTER)) is None:
        return None
    folder = package / PACKED
    if any(not (folder / name).is_file() for name in ADAPTER_FILES) or adapter_digest(folder) != expected:
        raise InputError(
            f"{folder} does not hold the adapters that this model's LLM had in training ({expected[:12]}): "
            "run `flame evaluate` to pack the model again"
        )
    return folder
