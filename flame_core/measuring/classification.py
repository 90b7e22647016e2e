"""Zero-shot classification into the source's top-level categories, from the class names only.

A class is the normalised mean of its normalised prompt embeddings, each prompt embedded with the raw template (FLAME's
protocol: single prompt, prompt ensemble). Ties between classes are resolved by expectation, as in retrieval, so a model
that sees no difference gets chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flame_core.measuring.retrieval import Ranking, rank_answers
from flame_core.measuring.similarity import best_candidates
from flame_core.measuring.texts import class_names, class_prompts
from flame_core.params import EvaluateParams
from flame_core.text.store import unit

Lookup = Callable[[str, Sequence[str]], np.ndarray]  # (kind, texts) -> [N, K, D], facets normalised


@dataclass(frozen=True)
class Classification:
    """Q classified pictures and C classes.

    Attributes:
        names: C classes.
        pictures: [Q] rows of the split.
        truth: [Q] index of the right class.
        predicted: [Q] index of the best class, the first of equals.
        ranking: of the right class among all.
    """

    names: list[str]
    pictures: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    ranking: Ranking

    def hits(self, k: int) -> np.ndarray:
        """[Q] probability that the right class is among the first k."""
        return self.ranking.hits(k)

    def chance(self, k: int) -> float:
        return min(k, len(self.names)) / len(self.names)

    def majority(self) -> float:
        """Top-1 accuracy of always answering the most frequent class."""
        return float(np.bincount(self.truth, minlength=len(self.names)).max() / len(self.truth))

    def confusion(self) -> np.ndarray:
        """[C, C] counts, right class by predicted class."""
        table = np.zeros((len(self.names), len(self.names)), dtype=np.int64)
        np.add.at(table, (self.truth, self.predicted), 1)
        return table


def class_embeddings(params: EvaluateParams, names: Sequence[str], lookup: Lookup) -> np.ndarray:
    """Embeddings of the classes [C, D], normalised."""
    rows = [unit(lookup("raw", class_prompts(params, name))[:, 0].mean(axis=0, dtype=np.float64)) for name in names]
    return np.stack(rows).astype(np.float32)


def classify(z: np.ndarray, keys: Sequence[str], classes: dict[str, str], t: np.ndarray) -> Classification:
    """Classify the pictures that have a class.

    Args:
        z: [N, D] picture embeddings of the split.
        keys: N keys.
        classes: {key: class}; keys without a class are left out.
        t: [C, D] embeddings of `class_names(classes)`.
    """
    names = class_names(classes)
    number = {name: index for index, name in enumerate(names)}
    rows = [row for row, key in enumerate(keys) if key in classes]
    pictures = np.array(rows, dtype=np.int64)
    truth = np.array([number[classes[keys[row]]] for row in rows], dtype=np.int64)
    edges = np.stack([np.arange(len(truth)), truth], axis=1)
    predicted = best_candidates(z[pictures], t, 1)[0][:, 0]
    return Classification(names, pictures, truth, predicted, rank_answers(z[pictures], t, edges))
