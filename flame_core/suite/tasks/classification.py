"""Zero-shot classification: a class is the normalised mean of its normalised prompts (CLIP, arXiv 2103.00020)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field

from flame_core.measuring.intervals import among, mean_over_classes, ratio
from flame_core.measuring.retrieval import rank_answers
from flame_core.suite.content import Labelled
from flame_core.suite.encoding import Vectors
from flame_core.suite.score import ClassScore, Score, Texts
from flame_core.suite.tasks.task import Asked, Task, TaskParams
from flame_core.suite.templates import CLASS, written
from flame_core.text.store import unit


def _hold_the_class(templates: dict[str, list[str]]) -> dict[str, list[str]]:
    found = {language: [written(row) for row in rows] for language, rows in templates.items()}
    for language, rows in found.items():
        if not rows or any(CLASS not in row for row in rows):
            raise ValueError(f"every template of {language!r} must contain {CLASS} or {{}}")
    return found


Templates = Annotated[dict[str, list[str]], AfterValidator(_hold_the_class)]


class ClassificationParams(TaskParams):
    """Zero-shot classification by class names in prompt templates."""

    kind: Literal["classification"]
    class_names: str | None = Field(
        default=None, description="JSON file of {language: [name of each class]} in the folder"
    )
    templates: Templates = Field(
        default={}, description="{language: templates with {c} or {}}; default: those of the data set, or only the name"
    )

    def prompt_languages(self) -> set[str]:
        return set(self.templates)


class ClassificationTask(Task[ClassificationParams, Labelled]):
    """Which class does a picture show? One score per language in which the classes have names."""

    params = ClassificationParams
    wanted = Labelled
    wanted_is = "pictures with a class"
    exported_as = "zeroshot_classification"
    overview = "data sets"
    titles: ClassVar[Mapping[str, str]] = {"acc1": "top-1", "acc5": "top-5"}

    def texts(self, params: ClassificationParams, content: Labelled) -> list[str]:
        found: dict[str, None] = {}
        for language, names in content.names.items():
            for rows in prompts(names, templates_of(params, content, language)):
                found.update(dict.fromkeys(rows))
        return list(found)

    def measure(
        self, asked: Asked[ClassificationParams, Labelled], vectors: Vectors
    ) -> Iterator[tuple[str, Score | None]]:
        z, encode = vectors.paired(asked.content.pictures)
        for language in asked.languages:
            yield language, score_language(asked.params, asked.content, language, z, encode)

    def headline(self, params: ClassificationParams) -> list[str]:
        return ["acc1"]

    def metrics(self, params: ClassificationParams) -> list[str]:
        return label_metrics("")


def prompts(names: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """The prompts of each class; without templates, only the name."""
    return [[template.replace(CLASS, name) for template in templates or [CLASS]] for name in names]


def templates_of(params: ClassificationParams, content: Labelled, language: str) -> list[str]:
    """The templates of the benchmark, else those of the data set, else none."""
    return params.templates.get(language) or content.templates.get(language) or []


def class_vectors(rows: Sequence[Sequence[str]], encode: Texts) -> np.ndarray:
    """[C, D] unit vectors of classes from their prompts; one class at a time, so 80,000 prompts need little memory.

    Means are computed in float64, so classes with the same prompts in another order are equal.
    """
    means = [unit(encode(prompts)).mean(axis=0, dtype=np.float64) for prompts in rows]
    return unit(np.stack(means)).astype(np.float32)


def score_language(
    params: ClassificationParams, content: Labelled, language: str, z: np.ndarray, encode: Texts
) -> Score | None:
    """Top-1, top-5 (if there are five classes or more) and mean per-class recall in one language.

    If the language names only some classes, only these and their pictures count.

    Args:
        params: have the templates.
        content: pictures, labels, names.
        language: one of its languages.
        z: [N, D] of all pictures.
        encode: texts to [T, D].
    """
    if language not in content.names:
        return None
    names = content.names[language]
    part = content.parts.get(language)
    covered = np.ones(len(z), dtype=bool) if part is None else np.isin(content.labels, part)
    if not covered.any():
        return None
    t = class_vectors(prompts(names, templates_of(params, content, language)), encode)
    if part is None:
        return score_labels("", language, z, t, content.labels, names)
    place = {number: i for i, number in enumerate(part)}
    labels = np.array([place[number] for number in content.labels[covered].tolist()])
    score = score_labels("", language, z[covered], t, labels, names)
    return replace(score, means={name: among(mean, covered) for name, mean in score.means.items()})


def label_metrics(prefix: str) -> list[str]:
    """The names of the metrics of `score_labels`."""
    return [f"{prefix}{name}" for name in ("acc1", "acc5", "mean_per_class_recall")]


def score_labels(
    prefix: str, language: str, z: np.ndarray, t: np.ndarray, labels: np.ndarray, names: Sequence[str] = ()
) -> Score:
    """The metrics of pictures z [N, D] against class vectors t [C, D]; their names begin with `prefix`.

    With the `names` of the classes, the score also has each class that has a picture.
    """
    count, classes = len(labels), len(t)
    edges = np.stack([np.arange(count), labels], axis=1)
    ranking = rank_answers(z, t, edges)
    score = Score(language, facts={"pictures": count, "classes": classes})
    pictures, hits = np.bincount(labels, minlength=classes), np.bincount(labels, ranking.hits(1), classes)
    score.classes = [
        ClassScore(name, int(own), float(right)) for name, own, right in zip(names, pictures, hits, strict=False) if own
    ]
    for k in (1, 5) if classes >= 5 else (1,):
        score.add(f"{prefix}acc{k}", ratio(ranking.hits(k), np.ones(count)), k / classes)
    score.add(f"{prefix}mean_per_class_recall", mean_over_classes(ranking.hits(1), labels), 1 / classes)
    return score
