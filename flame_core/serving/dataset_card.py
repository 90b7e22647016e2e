"""The card of the shards as a data set of a hub: YAML that its pages read, and what a person wants to know."""

from __future__ import annotations

from typing import Any

import yaml

from flame_core.language_names import language_name, without_variant
from flame_core.markdown import plain_text
from flame_core.serving.dataset_facts import DatasetFacts
from flame_core.serving.model_card import licences_of, what_of

_SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
_SIZES += [(10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M")]


def dataset_card(name: str, facts: DatasetFacts, licence: str | None) -> str:
    """The card in Markdown, with YAML metadata at its head."""
    total = sum(facts.samples.values())
    sources = [
        f"| {plain_text(source)} | {plain_text(what_of(record))} | {plain_text(licences_of(record))} |"
        for source, record in facts.sources.items()
    ]
    lines = [
        f"---\n{yaml.safe_dump(metadata(name, facts, licence), sort_keys=False, allow_unicode=True)}---",
        f"# {plain_text(name)}",
        f"{total:,} pictures with captions, of which {facts.samples['val']:,} are held out.",
        "Webdataset shards with `<key>.jpg` and `<key>.json` per sample, and `index.parquet` with the place of each "
        "picture. `croissant.json` describes the same for programs.",
        "## Sources\n\n| source | what | licence |\n|---|---|---|\n" + "\n".join(sources),
        _table("## Licences of the pairs", "licence", facts.licences.most_common()),
        _table("## Languages", "language", [(language_name(code), n) for code, n in facts.languages.most_common()]),
        _table("## Left out", "reason", sorted(facts.left_out.items())),
        "## Removal\n\nPictures that were asked to be removed are not in here, and count above as `forgotten`. A list "
        "of later removals must be applied to copies as well.",
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def metadata(name: str, facts: DatasetFacts, licence: str | None) -> dict[str, Any]:
    """The hub's metadata; only what is known."""
    total = sum(facts.samples.values())
    licence = licence or facts.licence
    return {
        **({"license": licence} if licence else {"license": "other", "license_name": "see-below"}),
        "pretty_name": name,
        "language": sorted({without_variant(code) for code in facts.languages}),
        "size_categories": [next((label for most, label in _SIZES if total < most), "100M<n<1B")],
        "task_categories": ["image-to-text", "zero-shot-image-classification"],
        "tags": ["webdataset", "croissant", "image-text"],
    }


def _table(title: str, what: str, rows: list[tuple[str, int]]) -> str:
    """A section with a table; nothing without rows."""
    if not rows:
        return ""
    lines = [f"| {plain_text(name)} | {number:,} |" for name, number in rows]
    return f"{title}\n\n| {what} | number |\n|---|---|\n" + "\n".join(lines)
