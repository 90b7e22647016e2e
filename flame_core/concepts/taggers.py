"""Taggers: a table that somebody made, a picture classifier, and similarity with vectors of the concepts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.concepts.concept_list import ConceptList
from flame_core.concepts.lemmas import lemmas
from flame_core.data.shards import IndexRow, PictureReader
from flame_core.digest import bytes_sha256, file_sha256
from flame_core.errors import InputError
from flame_core.measuring.similarity import similarities

_COLUMNS = {"key": pa.string(), "tags": pa.list_(pa.string()), "scores": pa.list_(pa.float64())}
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_null)
Encode = Callable[[Sequence[bytes]], np.ndarray]  # encoded pictures to vectors or scores [n, ...]


class TableTagger:
    """Tags by key, from a parquet file with `key`, `tags` and perhaps `scores`.

    A tag stands for a concept if both have the same lemmas. A key without a row has no tags. Every concept counts as
    one that the table can tell.

    Raises:
        InputError: the file cannot be read, lacks a column or has one of another type; names the column. A key is there
            twice, tags and scores differ in number, or a score is no finite number; names the row.
    """

    def __init__(self, path: Path, concepts: ConceptList, language: str) -> None:
        numbers = _by_lemmas(concepts)
        self.covered = np.ones(len(concepts), bool)
        self.identity = {"kind": "table", "sha256": file_sha256(path) if path.is_file() else ""}
        self._tags: dict[str, list[tuple[int, float]]] = {}
        known: dict[str, list[int]] = {}
        for number, row in enumerate(_read_table(path)):
            key, tags, scores = row["key"], row["tags"] or [], row.get("scores")
            if key in self._tags:
                raise InputError(f"{path}, row {number}: the key {key!r} is there a second time")
            if scores is not None and len(scores) != len(tags):
                raise InputError(f"{path}, row {number}: {len(tags)} tags and {len(scores)} scores of {key!r}")
            own = self._tags[key] = []
            for tag, score in zip(tags, scores or [1.0] * len(tags), strict=True):
                if tag is None or score is None or not math.isfinite(score):
                    raise InputError(f"{path}, row {number}: {key!r} has the tag {tag!r} with the score {score!r}")
                if tag not in known:
                    known[tag] = numbers.get(lemmas(tag, language), [])
                own += [(concept, score) for concept in known[tag]]

    def scores(self, rows: Sequence[IndexRow]) -> np.ndarray:
        found = np.full((len(rows), len(self.covered)), -np.inf, np.float32)
        for place, row in enumerate(rows):
            for concept, score in self._tags.get(row.key, []):
                found[place, concept] = max(found[place, concept], score)
        return found


class SimilarityTagger:
    """Cosines of picture vectors with a vector per concept."""

    def __init__(
        self, shards: Path, encode: Encode, vectors: np.ndarray, covered: np.ndarray, identity: Mapping[str, Any]
    ) -> None:
        """Take a function of pictures to unit vectors [n, D], and unit vectors of the concepts [C, D]."""
        self.covered = covered
        self._encode, self._vectors, self._reader = encode, vectors, PictureReader(shards)
        content = np.ascontiguousarray(vectors, np.float32).tobytes()
        self.identity = {**identity, "vectors": bytes_sha256(content)}

    def scores(self, rows: Sequence[IndexRow]) -> np.ndarray:
        z = self._encode([self._reader.jpeg(row) for row in rows])
        return similarities(z, self._vectors).astype(np.float32)


class ClassifierTagger:
    """Probabilities of a classifier's labels: a label stands for a concept if both have the same lemmas.

    A label may name several words, separated by commas, as ImageNet's do.
    """

    def __init__(
        self,
        shards: Path,
        encode: Encode,
        labels: Sequence[str],
        concepts: ConceptList,
        language: str,
        identity: Mapping[str, Any],
    ) -> None:
        """Take a function of pictures to probabilities [n, L], and the names of the L labels."""
        self._encode, self._reader, self.identity = encode, PictureReader(shards), dict(identity)
        numbers, pairs = _by_lemmas(concepts), set()
        for label, name in enumerate(labels):
            for part in [name, *name.split(",")]:
                pairs |= {(concept, label) for concept in numbers.get(lemmas(part, language), [])}
        self._pairs = sorted(pairs)
        self.covered = np.zeros(len(concepts), bool)
        self.covered[[concept for concept, _ in self._pairs]] = True

    def scores(self, rows: Sequence[IndexRow]) -> np.ndarray:
        probabilities = self._encode([self._reader.jpeg(row) for row in rows])
        found = np.zeros((len(rows), len(self.covered)), np.float32)
        for concept, label in self._pairs:
            found[:, concept] = np.maximum(found[:, concept], probabilities[:, label])
        return found


def _by_lemmas(concepts: ConceptList) -> dict[tuple[str, ...], list[int]]:
    numbers: dict[tuple[str, ...], list[int]] = {}
    for number, concept in enumerate(concepts):
        numbers.setdefault(concept.lemmas, []).append(number)
    return numbers


def _read_table(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path} is missing, the table of tags; correct concepts.images.tagger.path")
    try:
        table = pq.read_table(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable parquet file ({error})") from None
    for name in ("key", "tags"):
        if name not in table.column_names:
            raise InputError(f"{path}: no column `{name}`; it has {', '.join(table.column_names)}")
    present = [name for name in _COLUMNS if name in table.column_names]
    try:
        columns = {name: _typed(table.column(name), name) for name in present}
    except (ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: {error}; key holds texts, tags lists of texts, scores lists of numbers") from None
    if missing := columns["key"].null_count:
        raise InputError(f"{path}: {missing:,} rows have no key")
    return pa.table(columns).to_pylist()


def _typed(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column of a table of tags in the type that it must have.

    Raises:
        ValueError: it is of another one, such as a text with commas in place of a list.
    """
    if name != "key" and not any(is_kind(column.type) for is_kind in _LISTS):
        raise ValueError(f"the column `{name}` holds {column.type}, and not lists")
    return column.cast(_COLUMNS[name])
