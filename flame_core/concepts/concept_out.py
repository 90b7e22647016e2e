"""`data/concepts/`, what `flame concepts` makes: how often each concept occurs, and which samples have it.

frequency.parquet        a row per concept (`FREQUENCY`)
hits/00000.safetensors   per concept the rows of data/shards/train/00000.tar that have it, as roaring bitmaps:
                         `bag` and `phrase` in a caption, `image` in the picture (`bitmaps.py`)
misalignment.json        pairs whose sides have no concept in common
manifest.json            what the counts follow from, with the hash of the normaliser
concepts.html            for readers
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.concepts.concept_counts import Counts
from flame_core.concepts.concept_list import Concept, ConceptList
from flame_core.errors import InputError
from flame_core.files.parquet_bytes import parquet_bytes

FREQUENCIES, MISALIGNMENT, MANIFEST, PAGE = "frequency.parquet", "misalignment.json", "manifest.json", "concepts.html"
FREQUENCY = pa.schema(
    {
        "concept": pa.string(),
        "lemmas": pa.list_(pa.string()),
        "sources": pa.list_(pa.string()),
        "unknown": pa.list_(pa.string()),  # lemmas that no caption has
        "bag": pa.int64(),  # samples with all lemmas in one caption
        "phrase": pa.int64(),  # samples with the lemmas one after another
        "text": pa.int64(),  # one of the two, by concepts.mode
        "image": pa.int64(),  # samples whose picture shows it; null if no tagger can tell
        "both": pa.int64(),  # samples with both
    }
)


@dataclass(frozen=True)
class Frequencies:
    """What is counted per concept [C].

    Attributes:
        concepts: in the order of the arrays.
        unknown: per concept, its lemmas that no caption has.
        counts: as in `counts.py`.
        mode: how captions are matched.
    """

    concepts: ConceptList
    unknown: Sequence[Sequence[str]]
    counts: Counts
    mode: str

    @property
    def text(self) -> np.ndarray:
        return self.counts.text(self.mode)

    def by(self, side: str) -> np.ndarray:
        """[C] of `text`, `image` or `both`; -1 where there is no count."""
        return self.text if side == "text" else getattr(self.counts, side)

    def rarest(self) -> np.ndarray:
        """Numbers of the concepts by their count in captions, then by the one in pictures, then by name."""
        seen = self.counts.image
        return np.lexsort((np.arange(len(self.concepts)), seen, self.text))

    def to_bytes(self) -> bytes:
        """The content of `frequency.parquet`; equal counts give equal bytes."""
        absent = self.counts.image < 0
        columns = {
            "concept": self.concepts.names,
            "lemmas": [list(concept.lemmas) for concept in self.concepts],
            "sources": [list(concept.sources) for concept in self.concepts],
            "unknown": [list(each) for each in self.unknown],
            "bag": self.counts.bag,
            "phrase": self.counts.phrase,
            "text": self.text,
            "image": pa.array(self.counts.image, mask=absent),
            "both": pa.array(self.counts.both, mask=absent),
        }
        return parquet_bytes(pa.table(columns, schema=FREQUENCY))


def read_frequencies(folder: Path) -> Frequencies:
    """The counts in `data/concepts`.

    Raises:
        InputError: they are missing or damaged.
    """
    from flame_core.concepts.concept_counts import Misalignment

    path = folder / FREQUENCIES
    if not path.is_file():
        raise InputError(f"{path} is missing: run `flame concepts`, which needs a section `concepts` in the params")
    try:
        table = pq.read_table(path).cast(FREQUENCY)
        rows = table.to_pylist()
        concepts = [Concept(row["concept"], tuple(row["lemmas"]), tuple(row["sources"])) for row in rows]
        arrays = {
            name: np.array([-1 if row[name] is None else row[name] for row in rows], np.int64)
            for name in ("bag", "phrase", "image", "both")
        }
        content = json.loads((folder / MISALIGNMENT).read_text("utf-8"))
        counts = Counts(**arrays, misalignment=Misalignment(**content["counts"]))
        mode = read_manifest(folder)["mode"]
        return Frequencies(ConceptList(concepts), [row["unknown"] for row in rows], counts, mode)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise InputError(f"{path} is damaged ({error}): run `flame concepts` again") from None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of `manifest.json`.

    Raises:
        InputError: it is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): run `flame concepts` again") from None


def hits_name(shard: str) -> str:
    """hits/00000.safetensors of train/00000.tar."""
    return f"hits/{Path(shard).with_suffix('.safetensors').name}"
