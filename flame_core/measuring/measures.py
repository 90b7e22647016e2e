"""All measurements of one model on the held-out split, as flat metrics with intervals.

Keys (a direction is `image_to_text` or `text_to_image`, k comes from `evaluate.recall_at`):

| key | meaning |
|---|---|
| `retrieval/<language>/n` | number of pictures with a caption in the language; they are its gallery |
| `retrieval/<language>/<direction>/recall@k`, `.../low`, `.../high` | recall and its interval |
| `retrieval/<language>/<direction>/chance/recall@k` | recall of a random order, exactly |
| `retrieval/<language>/<direction>/median_rank` | median rank of the first right answer; 1 is best |
| `retrieval/<language>/ceiling/recall@k` | text-to-text recall against the training language, from the store |
| `retrieval/other_languages/...` | plain mean over all languages except the training language |
| `retrieval/chance/recall@k` | chance in the training language, mean of both directions |
| `facets/short/<j or mean>/<direction>/recall@k` | queries with one facet of the short captions, or with all |
| `classification/top1`, `top5`, `mean_per_class`, `majority`, `chance/top1`, `chance/top5` | zero-shot |
| `classification/classes`, `classification/pictures` | 0 if the source has no categories |

Facet queries score a picture by the mean over facets j of <z_j, t_j>, each facet normalised separately; z_j is the
picture's facet j if the tower has facet tokens, else z_0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from flame_core.captions.table import Caption
from flame_core.digest import value_digest
from flame_core.errors import InputError
from flame_core.gates import Check
from flame_core.measuring.classification import Classification, Lookup, class_embeddings, classify
from flame_core.measuring.estimates import Estimates
from flame_core.measuring.facet_pairing import picture_facet, picture_vectors, text_vectors
from flame_core.measuring.intervals import mean_over_classes
from flame_core.measuring.retrieval import DIRECTIONS, Direction, Pairing, Retrieval, both_ways
from flame_core.measuring.texts import FACET_KIND, class_names, evaluated_languages, facet_queries, pair_up
from flame_core.params import EvaluateParams, Params

OTHERS = "other_languages"
_DIGITS = 6


@dataclass(frozen=True)
class LanguageResult:
    """One language: its pictures and texts, both directions, and the ceiling {recall@k: value} of its texts."""

    pairing: Pairing
    directions: dict[Direction, Retrieval]
    ceiling: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """The measurements of one model.

    Attributes:
        keys: N keys of the split.
        z: [N, D] picture embeddings.
        languages: the training language first; only languages in which a picture has a caption.
        missing_languages: languages in params in which no picture has a caption.
        facets: facet number or `mean` -> both directions; empty if short captions are not embedded.
        classification: None if the source has no categories.
        metrics: flat numbers, as in the module's table.
        headline: the metrics for comparing recipes; each is the mean over some measures of `outcomes`.
        outcomes: every picture's contribution to those measures (`estimates.OUTCOMES_SCHEMA`).
    """

    keys: list[str]
    z: np.ndarray
    languages: dict[str, LanguageResult]
    missing_languages: list[str]
    facets: dict[str, dict[Direction, Retrieval]]
    classification: Classification | None
    metrics: dict[str, float]
    headline: dict[str, list[str]]
    outcomes: pa.Table

    @property
    def split(self) -> str:
        """Digest of the keys, in order; two models can be compared if it is the same."""
        return value_digest(self.keys)


def headline_k(params: EvaluateParams) -> int:
    """The k of headline numbers and gates: 10, or the largest in `recall_at`."""
    return 10 if 10 in params.recall_at else max(params.recall_at)


def measurable(pictures: int, k: int) -> bool:
    """Whether recall@k of so many pictures says anything: a random order reaches at most one half."""
    return pictures >= 2 * k


def evaluate(
    params: Params,
    views: np.ndarray,
    keys: Sequence[str],
    captions: Sequence[Caption],
    classes: Mapping[str, str],
    lookup: Lookup,
    ceilings: Mapping[str, Mapping[str, float]],
) -> Evaluation:
    """Measure a model.

    Args:
        params: uses `evaluate`, and the embedded kinds of captions.
        views: [N, 1 + F, D] picture embeddings, L2-normalised: the whole picture, then the tower's F facets, if any.
        keys: N keys, in the order of `views`.
        captions: captions of these pictures, of all kinds and languages.
        classes: {key: top-level class}.
        lookup: returns the embeddings of the texts in `evaluation_texts`.
        ceilings: {language: {recall@k: value}} of the LLM's texts (`ceilings.text_ceilings`).

    Raises:
        InputError: a caption of an unknown picture, or no caption in the training language.
    """
    options = params.evaluate
    z = views[:, 0]
    rows = {key: row for row, key in enumerate(keys)}
    if stray := sorted({caption.key for caption in captions} - rows.keys()):
        raise InputError(
            f"captions: {len(stray)} key(s) are not in the shards, such as {stray[0]}: run `flame caption`"
        )
    languages: dict[str, LanguageResult] = {}
    missing: list[str] = []
    for language in evaluated_languages(options, captions):
        pairing = pair_up(captions, rows, "raw", language)
        if not pairing.texts:
            missing.append(language)
            continue
        t = lookup("raw", pairing.texts)[:, 0]
        languages[language] = LanguageResult(pairing, both_ways(z, t, pairing), dict(ceilings.get(language, {})))
    if options.train_language not in languages:
        raise InputError(
            f"captions: no validation picture has a raw caption in {options.train_language!r} (evaluate.train_language)"
        )
    facets = _facets(params, views, captions, rows, lookup)
    names = class_names(dict(classes))
    classification = classify(z, keys, dict(classes), class_embeddings(options, names, lookup)) if names else None
    estimates = Estimates(len(keys))
    metrics = _describe(options, languages, facets, classification, estimates)
    headline = _group(options, languages, classification, estimates)
    metrics |= estimates.intervals(options.confidence)
    return Evaluation(
        list(keys), z, languages, missing, facets, classification,
        {name: round(float(value), _DIGITS) for name, value in sorted(metrics.items())},
        headline,
        estimates.outcomes(sorted({measure for measures in headline.values() for measure in measures})),
    )  # fmt: skip


def checks(evaluation: Evaluation, options: EvaluateParams) -> list[Check]:
    """Quality gates of a model: recall over chance per language, and whether all requested languages are present.

    Recall exceeds a floor if the lower end of its interval does. On ten pictures, recall@10 is 1, and so is chance.
    There it measures nothing, whatever the model: such a check has not passed, and does not block either. Nor has a
    model at chance passed where no floor is set.
    """
    k = headline_k(options)
    floors = {options.train_language: options.gates.min_recall_over_chance, **options.gates.language_floors}
    return [
        *(
            _over_chance(evaluation, language, direction, k, floor)
            for language, floor in floors.items()
            for direction in DIRECTIONS
        ),
        Check(
            name="languages_present",
            passed=not evaluation.missing_languages,
            description="every language of evaluate.languages has a validation caption",
            value=evaluation.missing_languages,
            threshold=[],
            blocking=False,
        ),
    ]


def _over_chance(evaluation: Evaluation, language: str, direction: Direction, k: int, floor: float) -> Check:
    """Whether recall@k exceeds that of a random order `floor` times; without a floor, whether it exceeds it at all."""
    told = f"lower end of recall@{k} in {language} over that of a random order"
    least, passed, blocking = None, False, True
    if language in evaluation.languages:
        prefix = f"retrieval/{language}"
        pictures, chance, low = (
            evaluation.metrics[f"{prefix}/{part}"]
            for part in ("n", f"{direction}/chance/recall@{k}", f"{direction}/recall@{k}/low")
        )
        least = low / chance
        if not measurable(int(pictures), k):
            told = (
                f"{pictures:g} pictures in {language} are too few: a random order has a recall@{k} of {chance:.0%} "
                "there, so this gate measures nothing"
            )
            blocking = False
        elif floor == 0 and least <= 1:
            told, floor, blocking = f"{told} does not exceed 1, and no floor is set", 1.0, False
        else:
            passed = least > floor
    return Check(
        f"recall_over_chance/{language}/{direction}",
        passed,
        told,
        value=None if least is None else round(least, 4),
        threshold=floor,
        blocking=blocking,
    )


def _facets(
    params: Params,
    views: np.ndarray,
    captions: Sequence[Caption],
    rows: dict[str, int],
    lookup: Lookup,
) -> dict[str, dict[Direction, Retrieval]]:
    if not facet_queries(params):
        return {}
    pairing = pair_up(captions, rows, FACET_KIND, params.evaluate.train_language)
    if not pairing.texts:
        return {}
    t = lookup(FACET_KIND, pairing.texts)  # [T, K, D]
    found = {str(j): both_ways(picture_facet(views, j), t[:, j - 1], pairing) for j in range(1, t.shape[1] + 1)}
    return found | {"mean": both_ways(picture_vectors(views), text_vectors(t, views.shape[1] - 1), pairing)}


def _describe(
    options: EvaluateParams,
    languages: Mapping[str, LanguageResult],
    facets: Mapping[str, Mapping[Direction, Retrieval]],
    classification: Classification | None,
    estimates: Estimates,
) -> dict[str, float]:
    """Metrics without an interval; those with one are added to `estimates`."""
    metrics: dict[str, float] = {}
    for language, result in languages.items():
        metrics[f"retrieval/{language}/n"] = len(result.pairing.pictures)
        metrics |= {f"retrieval/{language}/ceiling/{name}": value for name, value in result.ceiling.items()}
        for direction, measured in result.directions.items():
            prefix = f"retrieval/{language}/{direction}"
            metrics[f"{prefix}/median_rank"] = measured.median_rank()
            for k in options.recall_at:
                metrics[f"{prefix}/chance/recall@{k}"] = measured.chance(k)
                estimates.add(f"{prefix}/recall@{k}", measured.ranking.hits(k), measured.pictures)
    others = [language for language in languages if language != options.train_language]
    for k in options.recall_at:
        trained = [metrics[f"retrieval/{options.train_language}/{d}/chance/recall@{k}"] for d in DIRECTIONS]
        metrics[f"retrieval/chance/recall@{k}"] = float(np.mean(trained))
        if others:
            for direction in DIRECTIONS:
                name = f"{direction}/chance/recall@{k}"
                metrics[f"retrieval/{OTHERS}/{name}"] = float(
                    np.mean([metrics[f"retrieval/{language}/{name}"] for language in others])
                )
    if others:
        metrics[f"retrieval/{OTHERS}/n"] = len(others)
    for facet, both in facets.items():
        for direction, measured in both.items():
            for k in options.recall_at:
                name = f"facets/{FACET_KIND}/{facet}/{direction}/recall@{k}"
                estimates.add(name, measured.ranking.hits(k), measured.pictures)
    metrics["classification/classes"] = len(classification.names) if classification else 0
    metrics["classification/pictures"] = len(classification.pictures) if classification else 0
    if classification:
        metrics["classification/majority"] = classification.majority()
        for k in (1, 5):
            metrics[f"classification/chance/top{k}"] = classification.chance(k)
            estimates.add(f"classification/top{k}", classification.hits(k), classification.pictures)
        by_class = mean_over_classes(classification.hits(1), classification.truth)
        estimates.others["classification/mean_per_class"] = by_class
    return metrics


def _group(
    options: EvaluateParams,
    languages: Mapping[str, LanguageResult],
    classification: Classification | None,
    estimates: Estimates,
) -> dict[str, list[str]]:
    """Add the means over measures; returns {headline metric: the measures that it is the mean of}."""
    k = headline_k(options)
    others = [language for language in languages if language != options.train_language]
    headline = {}
    for direction in DIRECTIONS:
        name = f"retrieval/{options.train_language}/{direction}/recall@{k}"
        headline[name] = [name]
    for direction in DIRECTIONS if others else ():
        for at in options.recall_at:
            members = [f"retrieval/{language}/{direction}/recall@{at}" for language in others]
            estimates.groups[f"retrieval/{OTHERS}/{direction}/recall@{at}"] = members
        name = f"retrieval/{OTHERS}/{direction}/recall@{k}"
        headline[name] = estimates.groups[name]
    if classification:
        headline["classification/top1"] = ["classification/top1"]
    return headline
