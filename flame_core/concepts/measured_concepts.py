"""Scores per concept from the report of a recipe: accuracy of its class, or recall of the pictures that have it.

Two groups of test sets are fitted apart, because their scores mean different things:

- `classes`: zero-shot accuracy of a class, of the held-out categories and of benchmarks;
- `retrieval`: recall@k over the held-out pictures whose captions mention the concept, in both directions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from flame_core.captions.table import Caption, ShardCaptions
from flame_core.concepts.concept_list import ConceptList
from flame_core.concepts.frequency_fit import Points
from flame_core.concepts.lemmas import Numbering
from flame_core.concepts.text_hits import hits_of_shard, words_of_shard
from flame_core.digest import value_digest
from flame_core.errors import InputError
from flame_core.measuring.results import RESULTS, Results, read_results
from flame_core.measuring.texts import class_name
from flame_core.params.concepts import HELD_OUT_CLASSES
from flame_core.suite.benchmark_results import read_class_scores
from flame_core.suite.score import ClassScore

CLASSES, RETRIEVAL = "classes", "retrieval"


def class_points(
    report: Path, sources: Sequence[str], language: str, concepts: ConceptList, frequency: np.ndarray
) -> Points:
    """A point per class of the benchmarks among `sources`, whose frequency [C] is known (not below 0).

    Raises:
        InputError: the report has no results per class of one of them, or a class is not among the concepts.
    """
    numbers = {name: number for number, name in enumerate(concepts.names)}
    rows: list[tuple[str, str, int, float, int]] = []
    for source in sources:
        found = held_out_class_scores(report) if source == HELD_OUT_CLASSES else None
        for each in read_class_scores(report, source, language) if found is None else found:
            name = " ".join(each.name.replace("_", " ").split())
            if name not in numbers:
                raise InputError(
                    f"{report}: the class {name!r} of {source} is not among the counted concepts: run `flame concepts`"
                )
            count = int(frequency[numbers[name]])
            if count >= 0:
                rows.append((name, source, count, 100 * each.hits / each.pictures, each.pictures))
    return _points(rows)


def held_out_class_scores(report: Path) -> list[ClassScore]:
    """The categories of the held-out pictures that have a picture, from the report's confusion table.

    Raises:
        InputError: the report has no classification.
    """
    path = report / RESULTS
    try:
        described = json.loads(path.read_text("utf-8"))["classification"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: no readable results ({error}); run `flame evaluate {report.name}`") from None
    if "names" not in described:
        raise InputError(
            f"{path}: no results per class of {HELD_OUT_CLASSES}: "
            f"{described.get('skipped', 'nothing was classified')}. Take it out of concepts.benchmarks"
        )
    table = np.array(described["confusion"])
    return [
        ClassScore(class_name(name), int(row.sum()), float(row[number]))
        for number, (name, row) in enumerate(zip(described["names"], table, strict=True))
        if row.sum()
    ]


def retrieval_points(
    report: Path,
    captions: Sequence[Caption],
    kinds: Sequence[str],
    language: str,
    mode: str,
    patterns: ConceptList,
    frequency: np.ndarray,
    least: int,
) -> Points:
    """A point per concept and direction, of concepts that at least `least` held-out pictures have.

    Args:
        report: of the recipe.
        captions: of the held-out pictures, in the order in which they were measured.
        kinds: of captions that are searched, as in the training split.
        language: of these captions.
        mode: how they are matched.
        patterns: the concepts, with the lemmas that are looked for.
        frequency: [C].
        least: pictures.

    Raises:
        InputError: the report is of other pictures.
    """
    results = read_results(report)
    keys = list(dict.fromkeys(caption.key for caption in captions))
    if value_digest(keys) != results.split:
        raise InputError(
            f"{report}: measured on other held-out pictures than these: run `flame evaluate {report.name}`"
        )
    pictures = _pictures_with(keys, captions, kinds, language, mode, patterns)
    rows = []
    for measure, direction in _recalls(results, language):
        sums, queries = _by_picture(results, measure, len(keys))
        for number, own in enumerate(pictures):
            asked = queries[own].sum()
            if len(own) >= least and asked and frequency[number] >= 0:
                score = 100 * float(sums[own].sum()) / float(asked)
                rows.append((patterns[number].name, direction, int(frequency[number]), score, len(own)))
    return _points(rows)


def _recalls(results: Results, language: str) -> Iterator[tuple[str, str]]:
    """(measure, name for readers) of the headline recalls in a language."""
    for measure in results.headline:
        parts = measure.split("/")
        if parts[:2] == ["retrieval", language]:
            yield measure, f"{parts[2].replace('_', ' ')}, {parts[3]}"


def _by_picture(results: Results, measure: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = results.outcomes.filter(pc.field("measure") == measure)
    places = chosen.column("picture").to_numpy()
    sums, queries = np.zeros(count), np.zeros(count)
    np.add.at(sums, places, chosen.column("sum").to_numpy())
    np.add.at(queries, places, chosen.column("queries").to_numpy())
    return sums, queries


def _pictures_with(
    keys: Sequence[str], captions: Sequence[Caption], kinds: Sequence[str], language: str, mode: str, found: ConceptList
) -> list[np.ndarray]:
    """Per concept, the numbers of the pictures whose captions mention it."""
    number: Mapping[str, int] = {key: place for place, key in enumerate(keys)}
    own = [each for each in captions if each.kind in kinds and each.language == language]
    own.sort(key=lambda each: number[each.key])
    shard = ShardCaptions(np.array([number[each.key] for each in own], np.int64), [each.text for each in own])
    vocabulary = found.vocabulary
    places = {lemma: place for place, lemma in enumerate(vocabulary)}
    numbering = Numbering(vocabulary, language)
    patterns = [tuple(places[lemma] for lemma in concept.lemmas) for concept in found]
    hits = hits_of_shard(shard, words_of_shard(shard.texts, numbering), patterns, numbering)
    return [np.array(sorted(each), np.int64) for each in (hits.bag if mode == "bag" else hits.phrase)]


def _points(rows: Sequence[tuple[str, str, int, float, int]]) -> Points:
    columns = list(zip(*rows, strict=True)) if rows else [[]] * 5
    return Points(
        list(columns[0]),
        list(columns[1]),
        np.array(columns[2], np.int64),
        np.array(columns[3], np.float64),
        np.array(columns[4], np.int64),
    )
