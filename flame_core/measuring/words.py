"""How a model of words uses them on the held-out pictures, and how many it needs.

| key | meaning |
|---|---|
| `words/count` | V |
| `words/active` | words per picture that weigh more than 1 / sqrt(V), on average |
| `words/largest_use` | largest share of the pictures that one word is active in |
| `words/never_active` | share of the words that are active in no picture |
| `words/<kept>/recall@k` | recall in the training language, mean of both directions, with only these words |
| `words/<kept>/words` | how many of a picture's words that are, on average |

Kept are `all` words of a picture and of a text, the `active` ones, or the heaviest: `top_512`, `top_256`, `top_64`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import numpy as np

from flame_core.captions.table import Caption
from flame_core.lexical.values import heaviest, is_active, only_active
from flame_core.measuring.classification import Lookup
from flame_core.measuring.retrieval import both_ways
from flame_core.measuring.texts import pair_up
from flame_core.params import EvaluateParams

TOPS = (512, 256, 64)
_DIGITS = 6


def word_metrics(
    z: np.ndarray, keys: Sequence[str], captions: Sequence[Caption], lookup: Lookup, params: EvaluateParams, k: int
) -> dict[str, float]:
    """The metrics of the module's table.

    Args:
        z: [N, V] unit vectors of pictures.
        keys: N keys.
        captions: of these pictures.
        lookup: unit vectors of texts.
        params: name the training language.
        k: of the recall.
    """
    pairing = pair_up(captions, {key: i for i, key in enumerate(keys)}, "raw", params.train_language)
    t = lookup("raw", pairing.texts)[:, 0]
    active = is_active(z, z.shape[1])
    use = active.mean(axis=0)
    found = {
        "words/count": float(z.shape[1]),
        "words/active": float(active.sum(axis=1).mean()),
        "words/largest_use": float(use.max()),
        "words/never_active": float((use == 0).mean()),
    }
    for name in ("all", "active", *(f"top_{top}" for top in TOPS if top < z.shape[1])):
        pictures, texts = kept(z, name), kept(t, name)
        both = both_ways(pictures, texts, pairing)
        found[f"words/{name}/recall@{k}"] = mean(each.recall(k) for each in both.values())
        found[f"words/{name}/words"] = float((pictures > 0).sum(axis=1).mean())
    return {name: round(value, _DIGITS) for name, value in found.items()}


def kept(vectors: np.ndarray, which: str) -> np.ndarray:
    """Vectors [N, V] with only `all`, the `active`, or the `top_<n>` heaviest words of each; the others are 0."""
    if which == "all":
        return vectors
    if which == "active":
        return only_active(vectors)
    chosen = heaviest(vectors, int(which.removeprefix("top_")))
    found = np.zeros_like(vectors)
    np.put_along_axis(found, chosen, np.take_along_axis(vectors, chosen, axis=1), axis=1)
    return found
