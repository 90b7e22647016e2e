"""The training of an LLM's adapters as one unit of the work cache, with the LLM loaded only if it is not there.

The unit holds the adapters as `peft` writes them and the metrics by step; `llm_changed` in its counts is 1 if one of
the LLM's own weights changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flame_core.adapting.fit import Fit
from flame_core.adapting.pairs import CaptionPairs
from flame_core.adapting.reading import CaptionReader
from flame_core.digest import json_lines_bytes
from flame_core.files.weights import own_weights_sha256
from flame_core.model_files import METRICS
from flame_core.params import AdaptLLMParams, LLMParams, TextParams
from flame_core.soft_prompts.fit import seeded
from flame_core.stepping.stepwise import trained_unit
from flame_core.text.encoder import TextEncoder
from flame_core.work import Unit, UnitRecord, WorkCache


@dataclass(frozen=True)
class Adapting:
    """What learns from what; `run` does it, or finds it.

    Attributes:
        params: of the section.
        text: how captions are read.
        llm_params: of the LLM.
        folder: of the LLM.
        llm: its name and digest.
        pairs: to learn, and held out.
        inputs: all that the result follows from.
        cache: of the stage.
        device: on which all runs.
    """

    params: AdaptLLMParams
    text: TextParams
    llm_params: LLMParams
    folder: Path
    llm: tuple[str, str]
    pairs: CaptionPairs
    inputs: Mapping[str, Any]
    cache: WorkCache
    device: str

    def run(self) -> Unit:
        """The finished unit."""
        return trained_unit(self.cache, {**self.inputs, "result": "adapter"}, self._train)

    def _train(self, folder: Path, checkpoints: Path) -> UnitRecord:
        torch.set_num_threads(self.text.cpu_threads)
        encoder = TextEncoder.load(self.folder, self.text, self.llm_params, self.device)
        own = encoder.sentence_pass.model if encoder.sentence_pass else encoder.facet_pass.model
        before = own_weights_sha256(own)
        with seeded(self.params.seed):
            reader = CaptionReader(encoder, self.params.reading, self.params.lora, self.params.last_layers)
        torch.use_deterministic_algorithms(self.device == "cpu")
        try:
            rows = Fit(self.params, self.pairs, reader, checkpoints).run()
        finally:
            torch.use_deterministic_algorithms(False)
        for name, content in reader.files(self.llm).items():
            (folder / name).write_bytes(content)
        (folder / METRICS).write_bytes(json_lines_bytes(rows))
        return UnitRecord({"llm_changed": int(own_weights_sha256(own) != before)})
