"""The work of `flame prompts` as two units of its work cache: the training, and what the LLM writes then.

The second holds the head, the encoder if there is one, the metrics, and `written.json`: held-out captions and as many
that were learned, each with what the LLM wrote. `llm_changed` in its counts is 1 if the LLM's weights changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from flame_core.digest import json_bytes, json_lines_bytes, value_digest
from flame_core.files.weights import own_weights_sha256, save_weights
from flame_core.model_files import METRICS, WEIGHTS
from flame_core.params import LLMParams, PromptsParams
from flame_core.soft_prompts.fit import Fit
from flame_core.soft_prompts.frozen_llm import FrozenLLM, llm_digest, load_frozen
from flame_core.soft_prompts.prompt_head import PromptHeadConfig
from flame_core.soft_prompts.reconstruction import reconstructed
from flame_core.soft_prompts.sentences import Sentences
from flame_core.stepping.stepwise import trained_unit
from flame_core.work import Unit, UnitRecord, WorkCache

WRITTEN, ENCODER = "written.json", "encoder.safetensors"


@dataclass(frozen=True)
class Learning:
    """What is learned from what; `run` does it, or finds it.

    Attributes:
        params: of the section.
        llm_params: of the LLM.
        folder: of the LLM.
        sentences: to learn, and held out.
        source: which vectors the prompts are made from.
        captions: digest of the captions.
        cache: of the stage.
        device: on which all runs.
    """

    params: PromptsParams
    llm_params: LLMParams
    folder: Path
    sentences: Sentences
    source: dict[str, Any]
    captions: str
    cache: WorkCache
    device: str

    def run(self) -> Unit:
        """The finished unit."""
        return self.cache.get({**self._inputs, "result": self.params.written}, self._write)

    @cached_property
    def hidden(self) -> int:
        """H of the LLM."""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(self.folder, trust_remote_code=self.llm_params.trust_remote_code)
        return config.get_text_config(decoder=True).hidden_size

    @property
    def _inputs(self) -> dict[str, Any]:
        own = self.params.model_dump(mode="json", exclude={"gates", "written"})
        inputs = {"params": own, "llm": llm_digest(self.folder), "captions": self.captions, "source": self.source}
        if self.params.encoder is None:  # `source` says which captions of these files are read
            return inputs
        return inputs | {"texts": value_digest(self.sentences.texts)}

    def _write(self, folder: Path) -> UnitRecord:
        if self.device == "cpu":
            torch.set_num_threads(self.params.cpu_threads)
        dtype = getattr(torch, self.params.dtype)
        llm = load_frozen(self.folder, self.llm_params, dtype, self.device, self.params.template)
        before = own_weights_sha256(llm.model)
        fit = Fit(self.params, self._config(llm), llm, self.sentences)
        trained = trained_unit(self.cache, {**self._inputs, "result": WEIGHTS}, partial(_train, fit))
        model = fit.untrained()
        model.load_state_dict(load_file(trained.file(WEIGHTS)))
        model.to(llm.device).eval()
        model.head.save(folder)
        if model.encoder is not None:
            save_weights(model.encoder, folder / ENCODER)
        (folder / METRICS).write_bytes(trained.file(METRICS).read_bytes())
        tested = self.sentences.tested[: self.params.written]
        learned = self.sentences.learned[:: max(1, len(self.sentences.learned) // len(tested))][: len(tested)]
        lists = [
            [row.content for row in reconstructed(fit, model, numbers, title)]
            for numbers, title in ((tested, "write held-out captions"), (learned, "write learned captions"))
        ]
        (folder / WRITTEN).write_bytes(json_bytes(lists))
        return UnitRecord({"llm_changed": int(own_weights_sha256(llm.model) != before)})

    def _config(self, llm: FrozenLLM) -> PromptHeadConfig:
        encoder, store = self.params.encoder, self.sentences.store
        vector = encoder.width if encoder else store.hidden if store else 0
        return PromptHeadConfig(
            prompts=self.params.count,
            vector=vector,
            hidden=llm.hidden,
            width=self.params.width,
            scale=llm.row_scale,
            dropout=self.params.dropout,
            llm=llm.digest,
            llm_name=llm.name,
            template=self.params.template,
            max_tokens=self.params.max_tokens,
            source=self.source,
        )


def _train(fit: Fit, folder: Path, checkpoints: Path) -> UnitRecord:
    model, metrics = fit.run(checkpoints)
    save_weights(model, folder / WEIGHTS)
    (folder / METRICS).write_bytes(json_lines_bytes(metrics))
    return UnitRecord({"steps": len(metrics)})
