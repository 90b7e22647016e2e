"""The report page of a model: its training and data, how well it answers, and where it fails.

One self-contained file for a reader who knows nothing about the run. Every claim is measured, and every number is shown
with chance, its interval, or the ceiling of the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from flame_core.captions.table import Caption
from flame_core.digest import value_digest
from flame_core.gates import Check
from flame_core.inline_pictures import thumbnail
from flame_core.language_names import language_name
from flame_core.measuring.classification import Classification, Lookup
from flame_core.measuring.measures import OTHERS, Evaluation, headline_k
from flame_core.measuring.results import NO_CLASSES
from flame_core.measuring.retrieval import DIRECTIONS, Direction
from flame_core.measuring.spectra import Spectra
from flame_core.measuring.texts import FACET_KIND
from flame_core.pages import examples
from flame_core.pages.benchmark_section import benchmark_section
from flame_core.pages.captions_section import CaptionsShown
from flame_core.pages.charts import Bar, bar_chart, line_chart
from flame_core.pages.patch_overlays import likeness_overlay, word_overlay
from flame_core.pages.render import render
from flame_core.pages.run_facts import RunFacts
from flame_core.pages.words_section import WordsShown
from flame_core.params import Params, changed_values
from flame_core.patches.meaning import PictureMeaning
from flame_core.suite.benchmark_results import BenchmarkResult

WAYS: dict[Direction, str] = {"image_to_text": "Picture → text", "text_to_image": "Text → picture"}
_MATRIX_CLASSES = 30  # more do not fit on a page
_DIGEST = 12  # shown characters of a digest


def report_charts(evaluation: Evaluation, facts: RunFacts) -> dict[str, str]:
    """The charts of a report, {name: SVG}."""
    options = facts.params.evaluate
    k = headline_k(options)
    drawn = {}
    for direction, bars in language_bars(evaluation, options.train_language, k).items():
        drawn[f"recall_{direction}"] = bar_chart(bars, f"{WAYS[direction]}: recall@{k} by language")
    if facts.training:
        steps = [row["step"] for row in facts.training]
        for name, title in (("loss", "Training loss"), ("learning_rate", "Learning rate")):
            drawn[name] = line_chart(steps, [row[name] for row in facts.training], f"{title} by step", "step")
    if evaluation.facets:
        for direction in DIRECTIONS:
            bars = facet_bars(evaluation, facts.params, direction, k)
            drawn[f"facets_{direction}"] = bar_chart(bars, f"{WAYS[direction]}: recall@{k} by facet")
    return drawn


def language_bars(evaluation: Evaluation, train_language: str, k: int) -> dict[Direction, list[Bar]]:
    """One bar per language, in the same order for both directions: by the mean of the two, the best first."""
    m = evaluation.metrics
    order = sorted(
        evaluation.languages,
        key=lambda code: (-sum(m[f"retrieval/{code}/{direction}/recall@{k}"] for direction in DIRECTIONS), code),
    )
    return {
        direction: [
            _bar(
                m, f"retrieval/{code}/{direction}", k,
                label=language_name(code),
                ceiling=m.get(f"retrieval/{code}/ceiling/recall@{k}") if code != train_language else None,
                main=code == train_language,
            )
            for code in order
        ]
        for direction in DIRECTIONS
    }  # fmt: skip


def facet_bars(evaluation: Evaluation, params: Params, direction: Direction, k: int) -> list[Bar]:
    """The single prompt of the raw caption, each facet of the short one, and their average."""
    m = evaluation.metrics
    language = params.evaluate.train_language
    bars = [_bar(m, f"retrieval/{language}/{direction}", k, label="raw, one prompt")]
    for facet, both in evaluation.facets.items():
        label = f"{FACET_KIND}, average" if facet == "mean" else f"{FACET_KIND}, facet {facet}"
        prefix = f"facets/{FACET_KIND}/{facet}/{direction}"
        chance = both[direction].chance(k)
        bars.append(
            Bar(label, m[f"{prefix}/recall@{k}"], m[f"{prefix}/recall@{k}/low"], m[f"{prefix}/recall@{k}/high"], chance,
                main=facet == "mean")
        )  # fmt: skip
    return bars


def render_report(
    evaluation: Evaluation,
    facts: RunFacts,
    checks: Sequence[Check],
    captions: Sequence[Caption],
    lookup: Lookup,
    jpeg: Callable[[int], bytes],
    *,
    benchmark_results: Sequence[BenchmarkResult] = (),
    meaning: Sequence[PictureMeaning] = (),
    words: WordsShown | None = None,
    spectra: Spectra | None = None,
    written: CaptionsShown | None = None,
) -> str:
    """The report page as HTML.

    Args:
        evaluation: the model's results on the held-out split.
        facts: facts about the run.
        checks: the quality gates of this model, and checks before it that have not passed.
        captions: of the validation split.
        lookup: embeddings of texts.
        jpeg: a picture by its row in the validation split.
        benchmark_results: those on all benchmarks.
        meaning: what the patches of some pictures mean.
        words: of a model of words, how it uses them.
        spectra: of the vectors of pictures and texts, if they were measured.
        written: what the captioner that was trained from the model writes, if there is one.
    """
    options = facts.params.evaluate

    @cache
    def thumb(row: int) -> str:
        return thumbnail(jpeg(row))

    return render(
        "report.html.j2",
        facts=facts,
        recipe=facts.trained,
        evaluation=evaluation,
        m=evaluation.metrics,
        k=headline_k(options),
        options=options,
        others=[code for code in evaluation.languages if code != options.train_language],
        card_groups=card_groups(evaluation, facts.params),
        checks=checks,
        charts=report_charts(evaluation, facts),
        section=benchmark_section({facts.recipe: benchmark_results}),
        words=words,
        meaning=[drawn_meaning(each) for each in meaning],
        spectra=spectra or {},
        written=written,
        ways=WAYS,
        concepts=examples.concepts(evaluation, lookup),
        picture_queries=examples.picture_queries(evaluation, lookup),
        failures=examples.failures(evaluation, lookup),
        facets=facts.params.text.template[FACET_KIND].facets if evaluation.facets else [],
        raw_facets=facts.params.text.template["raw"].facets,
        matrix=confusion_rows(evaluation.classification),
        no_classes=NO_CLASSES,
        thumb=thumb,
        captions_of=descriptions(evaluation.keys, captions, options.train_language),
        params={
            "train": facts.trained.dump(),
            "evaluate": options.model_dump(mode="json"),
        },
        origin=origin(facts),
    )


def origin(facts: RunFacts) -> dict[str, str]:
    """What the report follows from, {what: digest}: the foot of the page.

    The params are those of the training and the evaluation, which the page shows. A date, a commit or a tracked run is
    not here: the same inputs must give the same page. `flame lineage` has them.
    """
    params = {
        "train": changed_values(facts.trained),
        "evaluate": changed_values(facts.params.evaluate),
    }
    data = {name: str(digest)[:_DIGEST] for name, digest in facts.config.get("data", {}).items()}
    return {
        "weights": facts.weights_sha256[:_DIGEST],
        "params of training and evaluation": value_digest(params)[:_DIGEST],
        **dict(sorted(data.items())),
    }


def drawn_meaning(meaning: PictureMeaning) -> dict[str, Any]:
    """The overlays of a picture: its patches' words, and their similarity to each facet."""
    words = [word for word, _ in meaning.words]
    return {
        "meaning": meaning,
        "words": word_overlay(meaning.patch_words, words, "words of the patches") if meaning.patch_words else "",
        "maps": [(each.facet, likeness_overlay(each.cosine, f"facet {each.facet}")) for each in meaning.maps],
    }


def card_groups(evaluation: Evaluation, params: Params) -> dict[str, list[dict[str, Any]]]:
    """The headline numbers by heading, each with chance, interval and a short explanation."""
    m = evaluation.metrics
    options = params.evaluate
    k = headline_k(options)
    rows = {options.train_language: language_name(options.train_language)}
    others = len(evaluation.languages) - 1
    if others:
        rows[OTHERS] = f"{others} unseen languages" if others > 1 else "one unseen language"
    found = [
        _card(m, f"retrieval/{row}/{direction}", k, WAYS[direction], what)
        for row, what in rows.items()
        for direction in DIRECTIONS
    ]
    groups = {f"Recall@{k} on held-out pictures": found}
    if evaluation.classification:
        value, chance = m["classification/top1"], m["classification/chance/top1"]
        groups["Zero-shot classification of held-out pictures"] = [
            {
                "title": "Right class first",
                "what": f"{len(evaluation.classification.names)} categories, top\u20111",
                "value": value,
                "low": m["classification/top1/low"],
                "high": m["classification/top1/high"],
                "chance": chance,
                "times": value / chance,
                "majority": m["classification/majority"],
            }
        ]
    return groups


def descriptions(keys: Sequence[str], captions: Sequence[Caption], language: str) -> list[str]:
    """Alternative texts of pictures: the first raw caption, in `language` if it has one; else the key."""
    found: dict[str, str] = {}
    for caption in sorted(captions, key=lambda caption: caption.language != language):
        if caption.kind == "raw":
            found.setdefault(caption.key, caption.text)
    return [found.get(key, key) for key in keys]


def confusion_rows(classification: Classification | None) -> list[dict[str, Any]]:
    """Rows of the confusion matrix with shares per row; empty if there is none or it is too large.

    A class without a measured picture has no recall: None.
    """
    if classification is None or len(classification.names) > _MATRIX_CLASSES:
        return []
    table = classification.confusion()
    totals, hits = table.sum(axis=1), classification.hits(1)
    return [
        {
            "name": name,
            "count": int(totals[row]),
            "recall": float(hits[classification.truth == row].mean()) if totals[row] else None,
            "cells": [
                {"count": int(count), "share": float(count / max(totals[row], 1)), "right": column == row}
                for column, count in enumerate(table[row])
            ],
        }
        for row, name in enumerate(classification.names)
    ]


def _bar(
    m: Mapping[str, float], prefix: str, k: int, *, label: str, ceiling: float | None = None, main: bool = False
) -> Bar:
    name = f"{prefix}/recall@{k}"
    return Bar(label, m[name], m[f"{name}/low"], m[f"{name}/high"], m[f"{prefix}/chance/recall@{k}"], ceiling, main)


def _card(m: Mapping[str, float], prefix: str, k: int, title: str, what: str) -> dict[str, Any]:
    name = f"{prefix}/recall@{k}"
    chance = m[f"{prefix}/chance/recall@{k}"]
    return {
        "title": title,
        "what": what,
        "value": m[name],
        "low": m[f"{name}/low"],
        "high": m[f"{name}/high"],
        "chance": chance,
        "times": m[name] / chance,
    }
