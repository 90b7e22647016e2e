"""The model card: what the model is, its training data and their licences, its scores, its limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flame_core.language_names import language_name
from flame_core.markdown import code_span, plain_text
from flame_core.measuring.measures import headline_k
from flame_core.measuring.text_side import side_of
from flame_core.pages.compare import chance_of, metric_title
from flame_core.params import Params
from flame_core.text.llm_licence import NOT_STATED


def model_card(
    recipe: str,
    params: Params,
    config: Mapping[str, Any],
    sources: Mapping[str, Any],
    pictures: Mapping[str, int],
    metrics: Mapping[str, float],
    headline: Sequence[str],
    languages: Sequence[str],
    llm_licence: str | None = None,
) -> str:
    """The card in Markdown.

    Args:
        recipe: its name.
        params: the run's.
        config: the model's `config.json`.
        sources: records of the sources (`provenance.read_sources`).
        pictures: number of pictures by split.
        metrics: flat scores.
        headline: names of the metrics to show first.
        languages: evaluated languages, in order.
        llm_licence: as the LLM's files state it.
    """
    trained = params.train[recipe].fitted(config["samples"])
    k = headline_k(params.evaluate)
    side = side_of(trained.model_dump()).card(params, trained)
    options = ", ".join(f"{name}={value}" for name, value in trained.model.backbone_options.items())
    return "\n".join(
        [
            f"# {recipe}",
            "",
            side.model,
            "",
            "## Model",
            f"- tower: timm {code_span(trained.model.backbone)}{f' ({plain_text(options)})' if options else ''} at "
            f"{trained.model.image_size} px, projector into {config['hidden']} dimensions",
            *_begins_with(config),
            f"- text side: {side.texts}",
            *_llm(config, llm_licence),
            f"- trained on {config['samples']} pictures, {trained.epochs} epochs, batch {trained.batch_size}, texts: "
            f"{', '.join(config['facets'])}",
            "",
            "## Data",
            f"{pictures['train']} pictures for training, {pictures['val']} held out.",
            "",
            *_table(
                ["source", "what", "licence"],
                (
                    [plain_text(name), plain_text(what_of(own)), plain_text(licences_of(own))]
                    for name, own in sources.items()
                ),
            ),
            "",
            "## Scores on the held-out split",
            "",
            *_table(
                ["measure", "score", "chance"],
                (
                    [plain_text(metric_title(name)), *(_percent(metrics.get(each)) for each in (name, chance_of(name)))]
                    for name in headline
                ),
            ),
            "",
            *_table(
                ["language", f"picture to text, recall@{k}", f"text to picture, recall@{k}"],
                (
                    [
                        plain_text(language_name(code)),
                        *(
                            _percent(metrics.get(f"retrieval/{code}/{way}/recall@{k}"))
                            for way in ("image_to_text", "text_to_image")
                        ),
                    ]
                    for code in languages
                ),
            ),
            "",
            "## Limits",
            f"- Captions in `{params.evaluate.train_language}` alone were trained on; other languages are what "
            f"{side.reader} makes of them, and differ as the table shows.",
            "- It knows what its training pictures show; scores on other kinds of pictures were not measured.",
            f"- {side.limit}",
            f"- Biases of the captions and of {side.reader} are its own; they were not measured.",
            "",
        ]
    )


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    head, *body = (f"| {' | '.join(row)} |" for row in (titles, *rows))
    return [head, "|" + "---|" * len(titles), *body]


def _begins_with(config: Mapping[str, Any]) -> list[str]:
    """The weights of another project that the tower began with."""
    init = config.get("init")
    if init is None:
        return []
    digest = f"sha256 `{init['sha256']}`, " if init.get("sha256") else ""
    licence = plain_text(init.get("licence") or "not stated")
    return [f"- the tower began with the weights {code_span(init['source'])} ({digest}licence: {licence})"]


def _llm(config: Mapping[str, Any], licence: str | None) -> list[str]:
    """The LLM whose vectors of texts the tower learned, and its licence."""
    llm = config.get("llm")
    if not llm or config.get("recipe", {}).get("text_tower") is not None:
        return []
    terms = plain_text(licence or NOT_STATED)
    return [f"- LLM: {code_span(llm['name'])} from {code_span(llm['source'])} (licence: {terms})"]


def what_of(source: Mapping[str, Any]) -> str:
    """What a source is, in a few words."""
    if packages := source.get("packages"):
        return ", ".join(f"{p['package']} {p['version']}" if isinstance(p, dict) else str(p) for p in packages)
    return f"{source.get('kind', 'unknown')}, {source.get('pairs', 'unknown number of')} pairs"


def licences_of(source: Mapping[str, Any]) -> str:
    """The licences that a source states."""
    found = Counter(str(p.get("licence") or "not stated") for p in source.get("packages", []) if isinstance(p, dict))
    return ", ".join(found) or str(source.get("licence") or "not stated")


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:.1f} %"
