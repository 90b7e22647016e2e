"""Zero-shot classification: a class is the normalised mean of its normalised prompts (CLIP, arXiv 2103.00020)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flame_core.measuring.intervals import mean_over_classes, ratio
from flame_core.measuring.retrieval import rank_answers
from flame_core.suite.content import Labelled
from flame_core.suite.definition import ClassificationParams
from flame_core.suite.score import Score, Texts
from flame_core.text.store import unit


def prompts(names: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """The prompts of each class; without templates the bare name."""
    return [[template.replace("{c}", name) for template in templates or ["{c}"]] for name in names]


def templates_of(task: ClassificationParams, content: Labelled, language: str) -> list[str]:
    """Those of the benchmark, else those of the data set, else none."""
    return task.templates.get(language) or content.templates.get(language) or []


def texts(task: ClassificationParams, content: Labelled) -> list[str]:
    """What is looked up, each text once."""
    found: dict[str, None] = {}
    for language, names in content.names.items():
        for rows in prompts(names, templates_of(task, content, language)):
            found.update(dict.fromkeys(rows))
    return list(found)


def class_vectors(rows: Sequence[Sequence[str]], encode: Texts) -> np.ndarray:
    """[C, D] unit vectors of classes by their prompts; one class at a time, so 80,000 prompts need little memory.

    Means are taken in float64, so classes of the same prompts in another order are equal.
    """
    means = [unit(encode(prompts)).mean(axis=0, dtype=np.float64) for prompts in rows]
    return unit(np.stack(means)).astype(np.float32)


def measure(task: ClassificationParams, content: Labelled, language: str, z: np.ndarray, encode: Texts) -> Score | None:
    """Top-1, top-5 (of five classes or more) and mean per class recall in one language.

    Args:
        task: its templates.
        content: pictures, labels, names.
        language: one of its languages.
        z: [N, D] of all pictures.
        encode: texts to [T, D].
    """
    if language not in content.names:
        return None
    t = class_vectors(prompts(content.names[language], templates_of(task, content, language)), encode)
    return score_labels("", language, z, t, content.labels)


def score_labels(prefix: str, language: str, z: np.ndarray, t: np.ndarray, labels: np.ndarray) -> Score:
    """The metrics of pictures z [N, D] against class vectors t [C, D], names behind `prefix`."""
    count, classes = len(labels), len(t)
    edges = np.stack([np.arange(count), labels], axis=1)
    ranking = rank_answers(z, t, edges)
    score = Score(language, facts={"pictures": count, "classes": classes})
    for k in (1, 5) if classes >= 5 else (1,):
        score.add(f"{prefix}acc{k}", ratio(ranking.hits(k), np.ones(count)), k / classes)
    score.add(f"{prefix}mean_per_class_recall", mean_over_classes(ranking.hits(1), labels), 1 / classes)
    return score
