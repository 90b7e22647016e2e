"""Where a text tower reads its captions: a value that is sent to the processes of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from flame_core.params import LLMParams, TextParams
from flame_core.text.jobs import training_job
from flame_core.text.store import Drawn


class CaptionSource(BaseModel):
    """Where a text tower that is trained with the image tower finds its captions and its tokenizer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    captions: Path
    tokenizer: Path
    text: TextParams
    language: str


class LLMSource(BaseModel):
    """The LLM that a training reads captions with, its digest, and the folder of the words that it gives."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    params: LLMParams
    digest: str
    lexicon: Path


class DrawnCaptions:
    """Captions of the training samples, by the names of the store's vectors."""

    def __init__(self, source: CaptionSource, names: Sequence[str]) -> None:
        self._source, self._names = source, list(names)
        self._shards: dict[str, Mapping[str, list[str]]] = {}

    def of(self, samples: Sequence[Drawn]) -> list[str]:
        """The captions that the samples' drawn vectors belong to, sample by sample."""
        return [self._text(shard, row, slot) for shard, row, slots in samples for slot in slots]

    def _text(self, shard: str, row: int, slot: int) -> str:
        if shard not in self._shards:
            source = self._source
            self._shards[shard] = training_job(source.captions, shard, source.text, source.language).texts
        name, _, number = self._names[slot].partition("#")
        kind: Any = name.partition("/")[0]
        count = self._source.text.captions_per_image if kind == "raw" else 1
        return self._shards[shard][kind][row * count + int(number or 1) - 1]
