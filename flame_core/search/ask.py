"""Finds the pictures of a gallery that are nearest to a text or to a picture.

A text is read as those were that the model was trained against. For a model of facets that is the raw template, as in
single-prompt evaluation, or every facet of the short template (`facets`): then a picture's score is the mean over
facets j of <z_j, t_j>. Vectors of texts that were asked are kept in the work cache, so that a text needs the LLM once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flame_core.data.picture_kinds import is_picture
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.measuring.facet_pairing import picture_vectors, text_vectors
from flame_core.measuring.similarity import best_candidates
from flame_core.measuring.texts import FACET_KIND
from flame_core.model.given_pictures import read_file
from flame_core.model.loaded import Model
from flame_core.names import shown
from flame_core.params import Params
from flame_core.search import nearness
from flame_core.search.galleries import HELD_OUT, Gallery, gallery_of
from flame_core.search.nearness import Nearness
from flame_core.work import UnitRecord, WorkCache

_VECTORS = "text.npy"


@dataclass(frozen=True)
class Hit:
    """A picture that was found: its number in the gallery, its key, file and score, and its first raw caption."""

    number: int
    key: str
    path: str
    score: float
    caption: str


@dataclass(frozen=True)
class Found:
    """The answer to a search: the best first, and whether any of it means something."""

    gallery: Gallery
    hits: Sequence[Hit]
    nearness: Nearness


def picture_asked(asked: str) -> Path | None:
    """The file of a picture that is asked with; None for a text.

    Raises:
        InputError: it looks like the path of a picture, and there is no such file.
    """
    path = Path(asked).expanduser()
    try:
        there = path.is_file()
    except OSError:  # longer than a path may be
        there = False
    if there:
        return path
    if is_picture(asked) and len(asked.split()) == 1:
        raise InputError(f"{shown(asked)} looks like the path of a picture, but there is no such file")
    return None


def ask_text(
    params: Params, layout: Layout, model: Model, text: str, index: str = HELD_OUT, top: int = 10, facets: bool = False
) -> Found:
    """The `top` nearest pictures for a text; with `facets`, one query per facet.

    Raises:
        InputError: the index, the model or its text side is missing, or does not fit.
        ParamsError: `facets` is set, but the model has no template with facets.
        GateError: what is needed failed a quality gate.
    """
    if not text.strip():
        raise InputError("the text is empty: write what to look for")
    if facets and FACET_KIND not in model.text["text"]["template"]:
        raise ParamsError(f"facet queries need text.template.{FACET_KIND}, which this model was not trained with")
    gallery = gallery_of(layout, model, index)
    t = _text_views(layout, model, FACET_KIND if facets else "raw", text)  # [K, D]
    if facets:
        asked, pictures = text_vectors(t[None], gallery.views.shape[1] - 1), picture_vectors(gallery.views)
        hits = _best(gallery, asked, pictures, top)
        return Found(gallery, hits, Nearness(None, "that is known only of searches without --facets"))
    hits = _best(gallery, t[:1], gallery.views[:, 0], top)
    return Found(gallery, hits, _near(params, layout, model, gallery, index, hits, by_text=True))


def ask_picture(
    params: Params, layout: Layout, model: Model, picture: Path, index: str = HELD_OUT, top: int = 10
) -> Found:
    """The `top` nearest pictures to a picture.

    Raises:
        InputError: the picture cannot be read, or as `ask_text`.
    """
    z = model.encode_image(read_file(picture))
    gallery = gallery_of(layout, model, index)
    hits = _best(gallery, z, gallery.views[:, 0], top)
    return Found(gallery, hits, _near(params, layout, model, gallery, index, hits, by_text=False))


def _near(
    params: Params, layout: Layout, model: Model, gallery: Gallery, index: str, hits: Sequence[Hit], by_text: bool
) -> Nearness:
    if not hits:
        return Nearness(None, "there are no pictures")
    try:
        held_out = gallery if index == HELD_OUT else gallery_of(layout, model, HELD_OUT)
    except InputError as error:
        return Nearness(None, f"there is no held-out split to compare with ({error})")
    best, count = hits[0].score, len(gallery.keys)
    if by_text:
        return nearness.of_text(params, layout, model, held_out, best, count)
    return nearness.of_picture(layout, model, held_out, best, count)


def _text_views(layout: Layout, model: Model, kind: str, text: str) -> np.ndarray:
    """[K, D] of a text."""

    def write(folder: Path) -> UnitRecord:
        np.save(folder / _VECTORS, model.text_views(kind, [text])[0])
        return UnitRecord({"texts": 1})

    inputs = {"text": text, "kind": kind, "model": model.of_texts}
    return np.load(WorkCache(layout.work, "query").get(inputs, write).file(_VECTORS))


def _best(gallery: Gallery, asked: np.ndarray, pictures: np.ndarray, top: int) -> list[Hit]:
    order, scores = best_candidates(asked, pictures, top)
    numbers = [int(number) for number in order[0]]
    captions = gallery.captions(numbers)
    return [
        Hit(number, gallery.keys[number], gallery.paths[number], float(score), captions.get(number, ""))
        for number, score in zip(numbers, scores[0], strict=True)
    ]
