"""Selections by scores: which samples meet all rules of a selection, and the file that a recipe names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from flame_core.errors import InputError
from flame_core.files.parquet_bytes import parquet_bytes
from flame_core.params.scores import ScoreRule
from flame_core.selections.filters import kept


def meeting(
    name: str, rules: Mapping[str, ScoreRule], scores: Mapping[str, np.ndarray], keys: Sequence[str]
) -> np.ndarray:
    """Whether each sample [N] meets all rules; of equal scores at the edge of `top`, a hash of the key decides.

    Args:
        name: of the selection.
        rules: {scorer: rule}.
        scores: {scorer: [N]}.
        keys: of all samples [N].

    Raises:
        InputError: no sample does; says what each rule keeps, and the range of its scores.
    """
    each = {scorer: _lets_through(rule, scores[scorer], keys) for scorer, rule in rules.items()}
    found = np.logical_and.reduce(list(each.values()))
    if not found.any():
        told = "; ".join(
            f"{scorer} keeps {own.sum():,} of {len(keys):,} (its scores go from {scores[scorer].min():.4g} to "
            f"{scores[scorer].max():.4g})"
            for scorer, own in each.items()
        )
        raise InputError(f"scores.selections.{name} keeps no sample: {told}; loosen its rules")
    return found


def _lets_through(rule: ScoreRule, scores: np.ndarray, keys: Sequence[str]) -> np.ndarray:
    found = np.ones(len(scores), bool)
    if rule.min is not None:
        found &= scores >= rule.min
    if rule.max is not None:
        found &= scores <= rule.max
    if rule.top is not None:
        found &= kept(scores, rule.top, list(keys))
    return found


def selected_file(chosen: np.ndarray, keys: Sequence[str], scores: Mapping[str, np.ndarray]) -> bytes:
    """The parquet file of a selection, sorted by key: the key, and a column per score that has a rule."""
    names = np.array(keys, dtype=object)[chosen]
    order = np.argsort(names, kind="stable")
    columns = {"key": pa.array(names[order].tolist(), pa.string())}
    columns |= {f"score_{name}": pa.array(own[chosen][order], pa.float32()) for name, own in scores.items()}
    return parquet_bytes(pa.table(columns))
