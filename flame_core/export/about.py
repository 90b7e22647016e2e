"""What the card of an exported folder says of data, scores and limits: the model card, from a package or from the run.

A packaged model has its card with it. A model that was trained here gets one from the run's sources, and from its
report if it was evaluated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame_core.layout import Layout
from flame_core.params import load_params

if TYPE_CHECKING:
    from flame_core.model.loaded import Model


@dataclass(frozen=True)
class About:
    """The model card's body in Markdown, and values for the metadata of the hub.

    Attributes:
        summary: what kind of model it is, in a sentence.
        body: sections of level 2.
        sources: names of the sources of the training pictures.
        scores: the headline measures: (metric as the hub calls it, title, value between 0 and 1).
        licence: of the exported weights, as the publisher named it.
    """

    summary: str
    body: str
    sources: list[str] = field(default_factory=list)
    scores: list[tuple[str, str, float]] = field(default_factory=list)
    licence: str | None = None


def about(model: Model, licence: str | None) -> About:
    """What is known of a model."""
    from flame_core.serving.package import CARD, SERVING

    if (model.folder / SERVING).is_file():
        card = model.folder / CARD
        return About(*_parts(card.read_text("utf-8") if card.is_file() else ""), licence=licence)
    return _of_run(model, Layout.find(model.folder.parents[2]), licence)


def _of_run(model: Model, layout: Layout, licence: str | None) -> About:
    from flame_core.data.shards import INDEX, SPLITS, read_index
    from flame_core.pages.compare import metric_title
    from flame_core.serving.model_card import model_card
    from flame_core.text.llm_licence import stated_licence
    from flame_core.tracking.provenance import read_sources

    if not (layout.shards / INDEX).is_file():  # the data were removed after the training
        return About(*_parts(""), licence=licence)
    params, recipe = load_params(layout), model.folder.name
    sources = read_sources(params, layout)
    pictures = {split: len(read_index(layout.shards, split)) for split in SPLITS}
    metrics, results = (_report(layout.report(recipe) / name) for name in ("metrics.json", "results.json"))
    headline = [name for name, _ in results.get("headline", [])]
    languages = list(results.get("languages", {}))
    terms = stated_licence(layout.llm / params.llm.name)
    card = model_card(recipe, params, model.config, sources, pictures, metrics, headline, languages, terms)
    scores = [(_metric(name), metric_title(name), metrics[name]) for name in headline if name in metrics]
    return About(*_parts(card), list(sources), scores, licence)


def _report(path: Path) -> dict[str, Any]:
    """A file of the report; empty if the model was not evaluated."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _metric(name: str) -> str:
    """`recall_at_10` for `retrieval/en/image_to_text/recall@10`."""
    return "accuracy" if name.startswith("classification/") else name.rpartition("/")[2].replace("@", "_at_")


def _parts(card: str) -> tuple[str, str]:
    """The summary below a card's title, and its sections."""
    head, mark, sections = card.partition("\n## ")
    summary = "\n".join(line for line in head.splitlines() if not line.startswith("# ")).strip()
    return summary or "An image encoder in a space of texts.", (mark + sections).strip()
