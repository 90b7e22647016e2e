"""Lists the texts that evaluation looks up in the embedding store, and defines which texts are equal.

`evaluation_texts` is the only list: the embed stage embeds exactly these texts, and evaluation reads exactly these, so
nothing after `embed` runs the LLM and no LLM token is wasted. (`meaning` reads only its output matrix.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from flame_core.captions.table import Caption, read_captions
from flame_core.data.captions_text import same_text
from flame_core.data.shards import Split, read_metas, shard_names
from flame_core.digest import text_sha256
from flame_core.measuring.retrieval import Pairing
from flame_core.params import CaptionKind, EvaluateParams, Params

FACET_KIND: CaptionKind = "short"  # the kind whose facets are queried one by one and averaged


def evaluated_languages(params: EvaluateParams, captions: Iterable[Caption]) -> list[str]:
    """The training language, then the others: as listed in params, or all languages of the captions, sorted."""
    if params.languages == "all":
        others = sorted({caption.language for caption in captions if caption.kind == "raw"})
    else:
        others = params.languages
    return list(dict.fromkeys([params.train_language, *others]))


def facet_queries(params: Params) -> bool:
    """Whether facets are queried one by one: only if training embeds that kind anyway."""
    return FACET_KIND in params.text.train_kinds


def class_name(category: str) -> str:
    """A category as used in a prompt."""
    return category.replace("_", " ").replace("-", " ")


def class_prompts(params: EvaluateParams, category: str) -> list[str]:
    """The prompts of one class."""
    return [prompt.replace("{class}", class_name(category)) for prompt in params.class_prompts]


def distinct_texts(captions: Iterable[Caption], kind: CaptionKind, language: str) -> dict[str, str]:
    """{identity: first text with it} of one kind and language, in order; `same_text`, as in the split, decides."""
    distinct: dict[str, str] = {}
    for caption in captions:
        if caption.kind == kind and caption.language == language:
            distinct.setdefault(same_text(caption.text), caption.text)
    return distinct


def stored_texts(captions: Sequence[Caption], kind: CaptionKind, language: str) -> dict[str, str]:
    """{key: first text} of one kind and language, each in the spelling that the store has: the first of equal texts."""
    distinct = distinct_texts(captions, kind, language)
    found: dict[str, str] = {}
    for caption in captions:
        if caption.kind == kind and caption.language == language:
            found.setdefault(caption.key, distinct[same_text(caption.text)])
    return found


def pair_up(captions: Sequence[Caption], rows: dict[str, int], kind: CaptionKind, language: str) -> Pairing:
    """Pair pictures with the distinct texts of one kind and language; `rows` is {key: row in the split}."""
    distinct = distinct_texts(captions, kind, language)
    number = {identity: index for index, identity in enumerate(distinct)}
    pairs = (
        (rows[caption.key], number[same_text(caption.text)])
        for caption in captions
        if caption.kind == kind and caption.language == language
    )
    return Pairing.of(pairs, list(distinct.values()))


def evaluation_texts(
    params: Params, captions: Sequence[Caption], categories: Sequence[str]
) -> list[tuple[CaptionKind, str]]:
    """The texts that evaluation will look up, each once, in a stable order.

    Args:
        params: sets languages, facet queries and class prompts.
        captions: captions of the validation split, in shard order.
        categories: names of the top-level classes (`class_names`).
    """
    wanted: dict[tuple[CaptionKind, str], None] = {}
    for language in evaluated_languages(params.evaluate, captions):
        wanted.update({("raw", text): None for text in distinct_texts(captions, "raw", language).values()})
    if facet_queries(params):
        texts = distinct_texts(captions, FACET_KIND, params.evaluate.train_language)
        wanted.update({(FACET_KIND, text): None for text in texts.values()})
    for category in categories:
        wanted.update({("raw", prompt): None for prompt in class_prompts(params.evaluate, category)})
    return list(wanted)


def evaluated_keys(keys: Iterable[str], limit: int | None) -> set[str]:
    """The pictures to measure: all, or `limit` of them, chosen by a hash of the key."""
    distinct = set(keys)
    return distinct if limit is None else set(sorted(distinct, key=text_sha256)[:limit])


def read_validation_captions(captions: Path, params: EvaluateParams) -> list[Caption]:
    """The captions of the evaluated validation pictures, in shard order."""
    rows = [caption for path in sorted((captions / "val").glob("*.parquet")) for caption in read_captions(path)]
    chosen = evaluated_keys((caption.key for caption in rows), params.max_pictures)
    return [caption for caption in rows if caption.key in chosen]


def read_classes(shards: Path, split: Split = "val") -> dict[str, str]:
    """{key: top-level class} of a split's pictures that have a category (`animals` of `animals/birds`)."""
    classes: dict[str, str] = {}
    for name in shard_names(shards, split):
        for key, meta in read_metas(shards / name):
            if top := str(meta.get("category") or "").split("/")[0].strip():
                classes[key] = top
    return classes


def class_names(classes: dict[str, str]) -> list[str]:
    """The distinct classes, sorted; empty if there are fewer than two."""
    names = sorted(set(classes.values()))
    return names if len(names) > 1 else []
