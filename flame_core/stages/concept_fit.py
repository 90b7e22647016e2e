"""concept_fit: counts of concepts and reports -> `data/concept-fit/`: how accuracy follows from frequency.

    flame concept-fit

Only if params have a section `concept_fit` (docs/concepts.md). The folder holds

    fit.json        per recipe and group of test sets the statistics (`concepts/frequency_fit.py`)
    points.parquet  a row per recipe, test set and concept
    fit.html        accuracy over frequency, with the long tail named
    checks.json     quality gates
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from flame_core import gates
from flame_core.concepts import paper_binned
from flame_core.concepts.concept_list import Concept, ConceptList
from flame_core.concepts.concept_out import Frequencies, read_frequencies, read_manifest
from flame_core.concepts.fit_metrics import fit_metrics
from flame_core.concepts.frequency_fit import Fit, Points, fit
from flame_core.concepts.measured_concepts import CLASSES, RETRIEVAL, class_points, retrieval_points
from flame_core.concepts.selected_counts import selected_counts
from flame_core.data.key_selection import select
from flame_core.data.shards import INDEX, read_index
from flame_core.digest import json_bytes
from flame_core.errors import InputError, ParamsError
from flame_core.files.parquet_bytes import parquet_bytes
from flame_core.graph.links import links
from flame_core.layout import Layout
from flame_core.measuring.texts import read_validation_captions
from flame_core.pages.charts import standalone
from flame_core.pages.concept_fit import Fitted, fit_chart, fit_page
from flame_core.params import ConceptFitParams, Params
from flame_core.reporting import facts, picture
from flame_core.tracking.run import track_stage
from flame_core.verification import verify
from flame_core.work import gather

STAGE = "concept_fit"
FIT, POINTS, PAGE = "fit.json", "points.parquet", "fit.html"
_BINS = {CLASSES: (paper_binned.CLASSES, (1, 1)), RETRIEVAL: (paper_binned.RETRIEVAL, (0, 0))}


def run(params: Params, layout: Layout) -> None:
    """Fit the recipes that the section `concept_fit` names."""
    chosen = params.concept_fit
    if chosen is None:
        raise ParamsError(f"{layout.params} has no section `concept_fit`: write `concept_fit: {{recipes: [flame]}}`")
    wanted = {layout.concepts: ["*"], layout.captions: ["val/*"]}
    wanted |= {layout.report(name): ["*"] for name in chosen.recipes}
    wanted |= {layout.shards: [INDEX]}
    for source in wanted:
        gates.require(source)
    verified = verify(wanted)
    counted = read_frequencies(layout.concepts)
    fitted: list[Fitted] = []
    for recipe in dict.fromkeys(chosen.recipes):
        for group, points in _points(params, layout, chosen, counted, recipe).items():
            bins, trim = _BINS[group]
            found = fit(points, chosen.resamples, chosen.permutations, chosen.seed, chosen.confidence, bins, trim)
            fitted.append(Fitted(recipe, group, points, found))
    if not fitted:
        raise InputError(
            "concept_fit: no concept is both counted and measured: give concepts.benchmarks, or nouns and "
            "concept_fit.retrieval"
        )
    checks = [_enough(each, chosen) for each in fitted]
    by_recipe: dict[str, dict[str, Any]] = {}
    for each in fitted:
        by_recipe.setdefault(each.recipe, {})[each.group] = each.fit.to_json()
    contents = {
        FIT: json_bytes({"frequency": chosen.frequency, "recipes": by_recipe}),
        POINTS: _table(fitted),
        PAGE: fit_page(fitted, counted, chosen).encode(),
        gates.CHECKS: gates.to_bytes(checks),
    }
    gather(layout.concept_fit, layout.state, {}, contents)
    misaligned = counted.counts.misalignment if read_manifest(layout.concepts)["tagger"] else None
    for recipe in by_recipe:
        fits = {each.group: each.fit for each in fitted if each.recipe == recipe}
        track_stage(layout, recipe, STAGE, [fit_metrics(fits, misaligned)])
    facts(STAGE, {**_told(fitted), "page": layout.concept_fit / PAGE, "verified": verified})
    gates.warn(checks)
    for each in fitted:
        picture(f"{each.recipe}, {each.group}", lambda each=each: standalone(fit_chart(each, chosen)), "svg+xml")


def _points(
    params: Params, layout: Layout, chosen: ConceptFitParams, counted: Frequencies, recipe: str
) -> dict[str, Points]:
    """The points of a recipe by group; only groups with points."""
    language, frequency = params.evaluate.train_language, _frequency(params, layout, chosen, counted, recipe)
    concepts, report = counted.concepts, layout.report(recipe)
    sources = sorted({source for concept in concepts for source in concept.sources} - {"nouns", "file"})
    found = {}
    if sources:
        found[CLASSES] = class_points(report, sources, language, concepts, frequency)
    if chosen.retrieval:
        manifest = read_manifest(layout.concepts)
        found[RETRIEVAL] = retrieval_points(
            report,
            read_validation_captions(layout.captions, params.evaluate),
            manifest["kinds"],
            language,
            counted.mode,
            _searched(counted, manifest["unknown"]),
            frequency,
            chosen.min_pictures,
        )
    return {group: points for group, points in found.items() if len(points)}


def _frequency(
    params: Params, layout: Layout, chosen: ConceptFitParams, counted: Frequencies, recipe: str
) -> np.ndarray:
    """[C]: in how many of the samples that the recipe trains on a concept is."""
    selection = links(layout, params.train[recipe]).get("selection")
    if selection is None:
        return counted.by(chosen.frequency)
    index = read_index(layout.shards, "train")
    selected = select(index, selection, layout.shards)
    return selected_counts(layout.concepts, counted, chosen.frequency, index, selected)


def _searched(counted: Frequencies, unknown: str) -> ConceptList:
    """The concepts with the lemmas that are looked for: all, or without those that were dropped in training captions.

    A concept none of whose words is in the training captions keeps them: what is never trained on is measured too.
    """
    pairs = zip(counted.concepts, counted.unknown, strict=True)
    kept = (
        (concept, tuple(each for each in concept.lemmas if unknown == "zero" or each not in lost))
        for concept, lost in pairs
    )
    return ConceptList(Concept(concept.name, own or concept.lemmas, concept.sources) for concept, own in kept)


def _enough(each: Fitted, chosen: ConceptFitParams) -> gates.Check:
    points = each.fit.points - each.fit.zero
    return gates.Check(
        f"concept_fit_points/{each.recipe}/{each.group}",
        points >= chosen.min_points,
        "concepts of a frequency above 0 that are measured",
        value=points,
        threshold=chosen.min_points,
        blocking=False,
    )


def _table(fitted: list[Fitted]) -> bytes:
    rows = [
        {
            "recipe": each.recipe,
            "group": each.group,
            "test_set": each.points.test_set[number],
            "concept": each.points.concept[number],
            "frequency": int(each.points.frequency[number]),
            "score": round(float(each.points.score[number]), 6),
            "pictures": int(each.points.weight[number]),
        }
        for each in fitted
        for number in range(len(each.points))
    ]
    return parquet_bytes(pa.Table.from_pylist(rows))


def _told(fitted: list[Fitted]) -> dict[str, str]:
    return {f"{each.recipe}, {each.group}": _sentence(each.fit) for each in fitted}


def _sentence(found: Fit) -> str:
    if found.slope is None or found.r is None:
        return f"{found.points} concepts, too few to fit"
    return (
        f"{found.slope:+.2f} points per decade ({found.slope_low:+.2f} to {found.slope_high:+.2f}), r {found.r:.2f} of "
        f"{found.points - found.zero} concepts"
    )
