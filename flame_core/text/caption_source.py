"""Where a text tower reads its captions: a value that is sent to the processes of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from flame_core.params import LLMParams, TextParams
from flame_core.text.jobs import captions_a_sample, training_job
from flame_core.text.shared_texts import SharedTexts
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
    """Captions of the training samples by the names of the store's vectors, in memory that all workers share.

    They are read at once: a sample of shuffled shards takes a caption of almost any of them.
    """

    def __init__(self, source: CaptionSource, names: Sequence[str]) -> None:
        kinds = source.text.train_kinds
        self._slots = [_kind_and_number(name) for name in names]
        self._counts = {kind: captions_a_sample(kind, source.text) for kind in kinds}
        self._rows: dict[str, range] = {}  # of each shard the numbers of its samples among all
        texts: dict[str, list[pa.Array]] = {kind: [] for kind in kinds}
        count = 0
        for path in sorted((source.captions / "train").glob("*.parquet")):
            shard = f"train/{path.stem}.tar"
            own = training_job(source.captions, shard, source.text, source.language).texts
            for kind in kinds:
                texts[kind].append(pa.array(own[kind], pa.large_string()))
            samples = len(own[kinds[0]]) // self._counts[kinds[0]]
            self._rows[shard] = range(count, count := count + samples)
        self._texts = {kind: SharedTexts(pa.chunked_array(found, pa.large_string())) for kind, found in texts.items()}

    def of(self, samples: Sequence[Drawn]) -> list[str]:
        """The captions that the samples' drawn vectors belong to, sample by sample."""
        return [self._text(shard, row, slot) for shard, row, slots in samples for slot in slots]

    def _text(self, shard: str, row: int, slot: int) -> str:
        kind, number = self._slots[slot]
        return self._texts[kind][self._rows[shard][row] * self._counts[kind] + number]


def _kind_and_number(name: str) -> tuple[str, int]:
    """The kind of a vector's caption, and which of a sample's captions of the kind it is: (raw, 1) of raw/1#2."""
    kind, _, vector = name.partition("/")
    return kind, int(vector.partition("#")[2] or 1) - 1
