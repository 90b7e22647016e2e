"""Scorers: a number per training sample, by a model of the user's or from a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from flame_core.captions.table import captions_file, read_shard_captions
from flame_core.codes.caption_similarity import raw_slots, tower_similarities
from flame_core.codes.patch_tokens import TrainedTower
from flame_core.data.shards import IndexRow, PictureReader
from flame_core.digest import file_sha256
from flame_core.errors import ComputationError, InputError, ParamsError
from flame_core.scoring.score_head import ScoreHead
from flame_core.suite.models.model import Model
from flame_core.suite.models.picture_classifier import PictureClassifier
from flame_core.text.store import TrainStore

_BATCH = 512  # pictures in memory at once
_ROUNDING = 1e-3  # by which a cosine may leave its bounds


class Scorer(Protocol):
    """Gives each sample a number.

    Attributes:
        identity: what the numbers depend on besides the samples, as JSON without paths.
        bounds: between which they lie.
    """

    identity: dict[str, Any]
    bounds: tuple[float, float]

    def scores(self, rows: Sequence[IndexRow]) -> np.ndarray:
        """[n] of index rows of one shard.

        Raises:
            InputError: a sample has no caption or no row in a table; names it.
        """
        ...


def checked_scores(name: str, scorer: Scorer, rows: Sequence[IndexRow]) -> np.ndarray:
    """The scores [n] of the rows of one shard in float32.

    Raises:
        InputError: as `Scorer.scores`.
        ComputationError: one is no finite number, or out of bounds; names the sample.
    """
    values = np.asarray(scorer.scores(rows), np.float64)
    low, high = scorer.bounds
    wrong = ~(np.isfinite(values) & (values >= low - _ROUNDING) & (values <= high + _ROUNDING))
    if wrong.any():
        place = int(wrong.argmax())
        within = "a finite number" if np.isinf([low, high]).any() else f"a number from {low:g} to {high:g}"
        raise ComputationError(f"scores.scorers.{name}: {rows[place].key} got {values[place]:g}, not {within}")
    return values.astype(np.float32)


class _OfPictures:
    """A scorer that looks at pictures only, in batches."""

    def __init__(self, shards: Path, read: Callable[[Sequence[bytes]], np.ndarray]) -> None:
        self._read, self._reader = read, PictureReader(shards)

    def scores(self, rows: Sequence[IndexRow]) -> np.ndarray:
        """[n] by the model."""
        found = [
            self._read([self._reader.jpeg(row) for row in rows[start : start + _BATCH]])
            for start in range(0, len(rows), _BATCH)
        ]
        return np.concatenate(found) if found else np.empty(0)


class HeadScorer(_OfPictures):
    """A head over the vectors that `read` gives."""

    bounds = (-np.inf, np.inf)

    def __init__(
        self, shards: Path, read: Callable[[Sequence[bytes]], np.ndarray], head: ScoreHead, about: Mapping[str, Any]
    ) -> None:
        super().__init__(shards, lambda jpegs: head(torch.from_numpy(read(jpegs))).numpy())
        self.identity = {"kind": "head", **about, "head": head.sha256, "activation": head.activation}


class ClassifierScorer(_OfPictures):
    """The probability of a label.

    Raises:
        ParamsError: the classifier has no such label.
    """

    bounds = (0.0, 1.0)

    def __init__(self, name: str, shards: Path, model: PictureClassifier, label: str) -> None:
        if label not in model.labels:
            raise ParamsError(
                f"scores.scorers.{name}.label: the classifier has no label {label!r}; it has "
                f"{', '.join(model.labels[:20])}{' and more' if len(model.labels) > 20 else ''}"
            )
        number = model.labels.index(label)
        super().__init__(shards, lambda jpegs: model.probabilities(jpegs)[:, number])
        self.identity = {"kind": "classifier", "model": dict(model.identity), "label": label}


class CaptionScorer:
    """The mean cosine of a picture with its raw captions in a language, by a dual encoder."""

    bounds = (-1.0, 1.0)

    def __init__(self, shards: Path, captions: Path, language: str, model: Model) -> None:
        self._model, self._language, self._captions = model, language, captions
        self._reader = PictureReader(shards)
        self.identity = {"kind": "model", "model": dict(model.identity), "language": language}

    def scores(self, rows: Sequence[IndexRow]) -> np.ndarray:
        """[n]; the rows are of one shard."""
        if not rows:
            return np.empty(0)
        path = captions_file(self._captions, rows[0].shard)
        captions = read_shard_captions(path, ["raw"], self._language)
        own: dict[int, list[str]] = {}
        for number, text in zip(captions.rows.tolist(), captions.texts, strict=True):
            own.setdefault(number, []).append(text)
        found = np.empty(len(rows))
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            if missing := [row.key for row in part if row.row not in own]:
                raise InputError(
                    f"{path}: sample {missing[0]} has no raw caption in {self._language!r} to compare with"
                )
            counts = [len(own[row.row]) for row in part]
            z = self._model.pictures([self._reader.jpeg(row) for row in part]).astype(np.float64)
            t = self._model.texts("raw", [text for row in part for text in own[row.row]]).astype(np.float64)
            cosines = (np.repeat(z, counts, axis=0) * t).sum(axis=1)
            found[start : start + len(part)] = np.add.reduceat(cosines, np.cumsum([0, *counts[:-1]])) / counts
        return found


class TowerScorer:
    """The cosine of a trained tower's picture vector with the mean of the stored vectors of the raw captions."""

    bounds = (-1.0, 1.0)

    def __init__(self, shards: Path, tower: TrainedTower, store: TrainStore) -> None:
        self._tower, self._store, self._slots = tower, store, raw_slots(store, "scores.scorers")
        self._reader = PictureReader(shards)
        self.identity = {"kind": "tower", "tower": tower.identity, "slots": self._slots}

    def scores(self, rows: Sequence[IndexRow]) -> np.ndarray:
        """[n]."""
        return tower_similarities(self._tower, self._store, self._slots, self._reader, rows)


class TableScorer:
    """A column of a parquet file, by key.

    Raises:
        InputError: the file is missing, lacks a column, has a key twice, or a value that is no finite number.
    """

    bounds = (-np.inf, np.inf)

    def __init__(self, name: str, path: Path, column: str) -> None:
        self._path = path
        keys, values = _read_column(path, column, f"scores.scorers.{name}")
        self._values = dict(zip(keys, values.tolist(), strict=True))
        if len(self._values) != len(keys):
            seen: set[str] = set()
            twice = next(key for key in keys if key in seen or seen.add(key))
            raise InputError(f"{path}: the key {twice!r} is there more than once")
        if not np.isfinite(values).all():
            raise InputError(f"{path}: {column} of {keys[int((~np.isfinite(values)).argmax())]!r} is no finite number")
        self.identity = {"kind": "table", "sha256": file_sha256(path), "column": column}

    def scores(self, rows: Sequence[IndexRow]) -> np.ndarray:
        """[n]."""
        if missing := [row.key for row in rows if row.key not in self._values]:
            raise InputError(
                f"{self._path}: no row for {missing[0]}{f' and {len(missing) - 1:,} more' if missing[1:] else ''} of "
                f"{rows[0].shard}; every training sample needs a score"
            )
        return np.array([self._values[row.key] for row in rows])


def _read_column(path: Path, column: str, where: str) -> tuple[list[str], np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path} is missing, a table of scores; correct {where}.path")
    try:
        table = pq.read_table(path)
        for name in ("key", column):
            if name not in table.column_names:
                raise InputError(f"{path}: no column `{name}`; it has {', '.join(table.column_names)}")
        keys = table.column("key").cast(pa.string()).to_pylist()
        return keys, table.column(column).cast(pa.float64()).to_numpy()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: `key` and `{column}` cannot be read as texts and numbers ({error})") from None
