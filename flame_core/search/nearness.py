"""Whether the best score of a search means that something is near, by scores of the held-out split that mean nothing.

The held-out split has pairs that do not belong together: a caption with the pictures of other captions, a picture with
the other pictures. Let F_j(s) be the share of wrong pictures of caption j (or of picture j) that score below s. Among G
wrong pictures at least one reaches s with probability 1 - F_j(s)^G. Its mean over all j,

    chance(s, G) = mean_j (1 - F_j(s)^G),

is how often a search that has nothing to find gives a best score of s or more, in a gallery of G pictures. Nothing is
near if that is more likely than not: chance(s, G) > 1/2. The measure is as good as the held-out split is like what is
asked; a few hundred wrong pictures say little of a gallery of a million, where the chance is too low.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flame_core.data.shards import INDEX
from flame_core.digest import file_sha256, text_sha256
from flame_core.errors import FlameError, InputError
from flame_core.layout import Layout
from flame_core.measuring.image_vectors import require_same_space
from flame_core.measuring.text_side import side_in
from flame_core.measuring.texts import evaluated_languages, pair_up, read_validation_captions
from flame_core.model.loaded import Model
from flame_core.params import Params
from flame_core.search.galleries import Gallery
from flame_core.text.manifest import require_fit
from flame_core.text.store import TextStore
from flame_core.verification import DIGESTS
from flame_core.work import UnitRecord, WorkCache

if TYPE_CHECKING:
    from flame_core.text.encoder import TextEncoder

MOST_QUERIES, MOST_PICTURES = 1000, 4000  # of the held-out split, chosen by a hash, so that a search stays quick
_SCORES = "wrong.npy"


@dataclass(frozen=True)
class Nearness:
    """What the held-out split says of a best score.

    Attributes:
        chance: how often a search with nothing to find scores as high; None if that could not be measured.
        why: then, the reason; else what it was measured with.
    """

    chance: float | None
    why: str

    @property
    def near(self) -> bool:
        """Whether the best picture is near; true if that is not known."""
        return self.chance is None or self.chance <= 0.5

    def __str__(self) -> str:
        if self.chance is None:
            return f"Whether anything is near was not measured: {self.why}."
        verdict = "" if self.near else "Nothing is near. "
        share = "less than 1 %" if self.chance < 0.01 else f"{100 * self.chance:.0f} %"
        return f"{verdict}A search with nothing to find has a best score this high in {share} of cases ({self.why})."


def chance(wrong: np.ndarray, best: float, count: int) -> float:
    """How often the best of `count` wrong pictures scores `best` or more.

    Args:
        wrong: [J, W] scores of wrong pictures; NaN stands for a right one.
        best: s.
        count: G.
    """
    below = (wrong < best).sum(axis=1) / (~np.isnan(wrong)).sum(axis=1)
    return float((1 - below**count).mean())


def of_text(params: Params, layout: Layout, model: Model, held_out: Gallery, best: float, count: int) -> Nearness:
    """For the best score of a text among `count` pictures."""
    return _measured(layout, model, "text", lambda: _wrong_texts(params, layout, model, held_out), best, count)


def of_picture(layout: Layout, model: Model, held_out: Gallery, best: float, count: int) -> Nearness:
    """For the best score of a picture among `count` pictures."""
    return _measured(layout, model, "picture", lambda: _wrong_pictures(held_out), best, count)


def _measured(
    layout: Layout, model: Model, kind: str, compute: Callable[[], np.ndarray], best: float, count: int
) -> Nearness:
    inputs = {
        "nearness": kind,
        "model": [model.of_pictures, model.of_texts],
        "captions": file_sha256(layout.captions / DIGESTS),
        "index": file_sha256(layout.shards / INDEX),
        "most": [MOST_QUERIES, MOST_PICTURES],
    }

    def write(folder: Path) -> UnitRecord:
        wrong = compute()
        np.save(folder / _SCORES, wrong)
        return UnitRecord({"queries": len(wrong)})

    try:
        unit = WorkCache(layout.work, "query").get(inputs, write)
    except FlameError as error:
        return Nearness(None, f"{error}".rstrip("."))
    wrong = np.load(unit.file(_SCORES))
    return Nearness(chance(wrong, best, count), f"measured with {len(wrong):,} {kind}s of the held-out split")


def _wrong_texts(params: Params, layout: Layout, model: Model, held_out: Gallery) -> np.ndarray:
    """Scores [J, W] of captions with pictures; NaN where they belong together."""
    store = TextStore.open(layout.embeddings)
    require_fit(store.manifest, params, layout)
    require_same_space(model.config, store.manifest, model.folder)
    if model.text["text"] != params.text.model_dump(mode="json"):
        raise InputError(f"{model.name} reads texts by other params than this project now")
    adapted = model.config["recipe"].get("lora") is not None  # no store has its texts; the query has loaded the LLM
    side = model.side if adapted else side_in(model.folder).of_model(model.folder, store, _no_llm)
    rows = {key: number for number, key in enumerate(held_out.keys)}
    captions = [
        caption for caption in read_validation_captions(layout.captions, params.evaluate) if caption.key in rows
    ]
    texts = [
        (text, pairing, number)
        for language in evaluated_languages(params.evaluate, captions)
        for pairing in [pair_up(captions, rows, "raw", language)]
        for number, text in enumerate(pairing.texts)
    ]
    texts = [texts[place] for place in _chosen([text for text, _, _ in texts], MOST_QUERIES)]
    if not texts:
        raise InputError("the held-out split has no captions")
    pictures = _chosen(held_out.keys, MOST_PICTURES)
    t = side.lookup("raw", [text for text, _, _ in texts])[:, 0]
    scores = t @ held_out.views[pictures, 0].T
    for line, (_, pairing, number) in zip(scores, texts, strict=True):
        own = pairing.pictures[pairing.edges[pairing.edges[:, 1] == number, 0]]
        line[np.isin(pictures, own)] = np.nan
    return _with_wrong_ones(scores)


def _wrong_pictures(held_out: Gallery) -> np.ndarray:
    """Scores [J, W] of pictures with pictures; NaN for a picture with itself."""
    pictures = _chosen(held_out.keys, MOST_PICTURES)
    asked = pictures[:MOST_QUERIES]
    scores = held_out.views[asked, 0] @ held_out.views[pictures, 0].T
    scores[np.arange(len(asked)), np.arange(len(asked))] = np.nan
    return _with_wrong_ones(scores)


def _chosen(names: Sequence[str], most: int) -> np.ndarray:
    """Numbers of at most so many names, by a hash."""
    return np.array(heapq.nsmallest(most, range(len(names)), key=lambda number: text_sha256(names[number])), np.int64)


def _with_wrong_ones(scores: np.ndarray) -> np.ndarray:
    found = scores[(~np.isnan(scores)).any(axis=1)]
    if not len(found):
        raise InputError("the held-out split has too few pictures")
    return found


def _no_llm() -> TextEncoder:
    raise InputError("captions of the held-out split are not stored; run `flame embed`")
