"""Ceilings: how well a language's captions find pictures if each picture's embedding is that of its own caption.

No image tower can be expected to do better in that language, because it learns only from captions in the training
language.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flame_core.captions.table import Caption
from flame_core.data.captions_text import same_text
from flame_core.measuring.classification import Lookup
from flame_core.measuring.retrieval import retrieve
from flame_core.measuring.texts import distinct_texts, evaluated_languages, pair_up
from flame_core.params import EvaluateParams


def text_ceilings(params: EvaluateParams, captions: Sequence[Caption], lookup: Lookup) -> dict[str, dict[str, float]]:
    """Text-to-text recall by language, {language: {recall@k: value}}.

    Args:
        params: gives the languages and the values of k.
        captions: captions of the measured pictures, in shard order.
        lookup: returns the LLM's embeddings of their raw captions.
    """
    trained = list(dict.fromkeys(c.key for c in captions if c.kind == "raw" and c.language == params.train_language))
    if not trained:
        return {}
    rows = {key: row for row, key in enumerate(trained)}
    read = pair_up(captions, rows, "raw", params.train_language)
    first = read.edges[np.searchsorted(read.edges[:, 0], np.arange(len(rows))), 1]  # text of each picture
    pictures = lookup("raw", [read.texts[text] for text in first])[:, 0]  # the output of a perfect tower: [N, D]
    own = [caption for caption in captions if caption.key in rows]
    ceilings = {}
    for language in evaluated_languages(params, captions):
        pairing = pair_up(own, rows, "raw", language)
        if pairing.texts:
            stored = distinct_texts(captions, "raw", language)  # a picture without a pair may spell a text first
            texts = [stored[same_text(text)] for text in pairing.texts]
            found = retrieve(pictures, lookup("raw", texts)[:, 0], pairing, "text_to_image")
            ceilings[language] = {f"recall@{k}": found.recall(k) for k in params.recall_at}
    return ceilings
