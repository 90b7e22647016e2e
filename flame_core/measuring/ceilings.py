"""Ceilings: how well a language's captions find pictures whose embeddings are those of their own caption.

No image tower can be expected to do better in that language, as it learns from captions in the training language only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flame_core.captions.table import Caption
from flame_core.measuring.classification import Lookup
from flame_core.measuring.retrieval import retrieve
from flame_core.measuring.texts import evaluated_languages, pair_up
from flame_core.params import EvaluateParams


def text_ceilings(params: EvaluateParams, captions: Sequence[Caption], lookup: Lookup) -> dict[str, dict[str, float]]:
    """Text-to-text recall by language, {language: {recall@k: value}}.

    Args:
        params: name the languages and the values of k.
        captions: of the measured pictures, in the order of the shards.
        lookup: the LLM's embeddings of their raw captions.
    """
    trained = list(dict.fromkeys(c.key for c in captions if c.kind == "raw" and c.language == params.train_language))
    if not trained:
        return {}
    rows = {key: row for row, key in enumerate(trained)}
    read = pair_up(captions, rows, "raw", params.train_language)
    first = read.edges[np.searchsorted(read.edges[:, 0], np.arange(len(rows))), 1]  # text of each picture
    pictures = lookup("raw", [read.texts[text] for text in first])[:, 0]  # what a perfect tower would say: [N, D]
    own = [caption for caption in captions if caption.key in rows]
    ceilings = {}
    for language in evaluated_languages(params, captions):
        pairing = pair_up(own, rows, "raw", language)
        if pairing.texts:
            found = retrieve(pictures, lookup("raw", pairing.texts)[:, 0], pairing, "text_to_image")
            ceilings[language] = {f"recall@{k}": found.recall(k) for k in params.recall_at}
    return ceilings
