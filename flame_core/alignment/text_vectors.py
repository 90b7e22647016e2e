"""Captions of the pairs as an LLM has them, by layer; kept in the work cache.

A unit is one layer of an LLM and 512 captions. All layers that are missing are read in one pass, so a killed run
continues with the captions that were not read yet, and a larger number of pairs keeps what was read for a smaller one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flame_core.digest import value_digest
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import LLMParams, Params
from flame_core.params.alignment import ProbedLLM, ProbeParams
from flame_core.processes.freed_memory import keep_freed_memory
from flame_core.processes.gpu import free_memory
from flame_core.reporting import progress
from flame_core.settings import settings
from flame_core.text.cost import LLMShape
from flame_core.text.encoder import TextEncoder
from flame_core.text.fetched_llm import fetched_llm
from flame_core.text.identity import rounding_of
from flame_core.text.layers import read_layers
from flame_core.text.llm import SOURCE, read_source
from flame_core.text.memory import require_llm_memory
from flame_core.text.sentence import SENTENCE
from flame_core.verification import verify
from flame_core.work import UnitRecord, WorkCache

PART = 512  # captions
_VECTORS = "vectors.npy"


class LayerTexts:
    """The vectors of captions by one LLM, at each of the layers that the params name.

    Raises:
        InputError: the LLM's files are missing or damaged, or it has fewer layers.
        ResourceError: it cannot be fetched.
    """

    def __init__(self, name: str, asked: ProbedLLM, params: Params, layout: Layout) -> None:
        assert params.probe is not None
        self.name = name
        self._llm = asked.llm(name, params.llm)
        self._folder = _folder(self._llm, params.llm, layout)
        self._work = layout.work
        self.digest = value_digest(read_source(self._folder)["files"])
        self.depth = LLMShape.in_folder(self._folder).layers
        self.layers = list(range(1, self.depth + 1)) if asked.layers == "all" else sorted(asked.layers)
        if self.layers[-1] > self.depth:
            raise InputError(f"layers has {self.layers[-1]}, and {self._llm.source} has {self.depth} layers")
        self._text = _reading(params, params.probe, self.layers[-1])
        self._params = params.model_copy(update={"llm": self._llm, "text": self._text})
        self._kind = "raw" if params.probe.reading is None else SENTENCE

    @property
    def source(self) -> str:
        """Where it is from, in words."""
        seed = self._llm.random_seed
        return self._llm.source + ("" if seed is None else f" with random weights of the seed {seed}")

    def read(self, texts: Sequence[str]) -> dict[int, np.ndarray]:
        """{layer: unit vectors [N, D] in float16} of captions.

        Raises:
            ComputationError: the LLM cannot be read, or gives values that are not finite.
        """
        cache, found = WorkCache(self._work, "encode"), {layer: list[np.ndarray]() for layer in self.layers}
        encoders: list[TextEncoder] = []
        with progress(self.name, len(texts), "captions") as bar:
            for start in range(0, len(texts), PART):
                part = list(texts[start : start + PART])
                units = {layer: cache.find(cache.digest(self._inputs(layer, part))) for layer in self.layers}
                missing = [layer for layer, unit in units.items() if unit is None]
                if missing:
                    encoders = encoders or [self._open()]
                    vectors = read_layers(encoders[0], self._kind, part, missing, bar.advance)
                    for layer, values in vectors.items():
                        units[layer] = cache.get(self._inputs(layer, part), partial(_write, values))
                else:
                    bar.advance(len(part))
                for layer, unit in units.items():
                    assert unit is not None
                    found[layer].append(np.load(unit.file(_VECTORS)))
        return {layer: np.concatenate(parts) for layer, parts in found.items()}

    def _inputs(self, layer: int, texts: list[str]) -> dict[str, Any]:
        own = self._text
        how = {"template": own.template["raw"].model_dump(), "normalise": own.normalise, "cut": own.max_caption_tokens}
        if own.sentence is not None:
            how = own.sentence.model_dump(exclude={"layer", "final_norm"}) | {"cut": own.max_caption_tokens}
        reading = {"how": how, "dtype": rounding_of(own)}
        return {"what": "layer", "llm": self.digest, "layer": layer, "reading": reading, "texts": value_digest(texts)}

    def _open(self) -> TextEncoder:
        device = settings().torch_device()
        torch.set_num_threads(self._text.cpu_threads)
        if device == "cpu":
            keep_freed_memory()
        if device == "cuda":
            weights = LLMShape.in_folder(self._folder).weight_bytes(self._text.depth, self._text.dtype)
            require_llm_memory(self._params, weights, free_memory())
        return TextEncoder.load(self._folder, self._text, self._llm, device)


def _reading(params: Params, probe: ProbeParams, depth: int) -> Any:
    """The params of texts, read at the deepest layer, and as sentences only if the probe reads them so."""
    sentence = None if probe.reading is None else probe.reading.model_copy(update={"layer": depth})
    return params.text.model_copy(update={"layer": depth, "sentence": sentence})


def _folder(llm: LLMParams, own: LLMParams, layout: Layout) -> Path:
    """Where its files are: in `data/llm` if it is the params' own and was fetched there, else in the work cache."""
    place = layout.llm / llm.name
    if llm == own and (place / SOURCE).is_file() and read_source(place).get("source") == llm.source:
        verify({layout.llm: [f"{llm.name}/*"]})
        return place
    return fetched_llm(llm, layout).folder


def _write(values: np.ndarray, folder: Path) -> UnitRecord:
    np.save(folder / _VECTORS, values.astype(np.float16))
    return UnitRecord({"captions": len(values)})
