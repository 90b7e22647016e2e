"""Finds the pictures of a gallery that are nearest to a text or to a picture.

A text is read as those were that the model was trained against. For a model of facets that is the raw template, as in
single-prompt evaluation, or every facet of the short template (`facets`): then a picture's score is the mean over
facets j of <z_j, t_j>. Vectors of texts that were asked are kept in the work cache, so that a text needs the LLM once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flame_core.data.picture_kinds import is_picture
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.lexical.lexicon import Lexicon
from flame_core.measuring.facet_pairing import picture_vectors, text_vectors
from flame_core.measuring.similarity import best_candidates
from flame_core.measuring.texts import FACET_KIND
from flame_core.model.loaded import Model
from flame_core.names import expanded, is_text, shown
from flame_core.params import Params
from flame_core.search import nearness
from flame_core.search.galleries import HELD_OUT, Gallery, gallery_of, gallery_version
from flame_core.search.nearness import Nearness
from flame_core.search.words import Parts, WordIndex, asked_words, explained
from flame_core.text.caption_tokens import require_content
from flame_core.work import UnitRecord, WorkCache

Elsewhere = Callable[[str, str], np.ndarray | None]
_VECTORS = "text.npy"
_HELD_TEXTS = 10_000  # vectors in memory; the oldest is forgotten first, and is still in the work cache


@dataclass(frozen=True)
class Hit:
    """A picture that was found: its number in the gallery, its key, file and score, and its first raw caption.

    A model of words also says which of them make up the score.
    """

    number: int
    key: str
    path: str
    score: float
    caption: str
    words: Parts = ()


@dataclass(frozen=True)
class Found:
    """The answer to a search: the best first, and whether any of it means something."""

    gallery: Gallery
    hits: Sequence[Hit]
    nearness: Nearness


def picture_asked(asked: str) -> Path | None:
    """The file of a picture that is asked with; None for a text.

    Raises:
        InputError: it looks like the path of a picture, and there is no such file; or it is no text.
    """
    path = expanded(asked)
    try:
        there = path.is_file()
    except OSError:  # longer than a path may be
        there = False
    if there:
        return path
    if is_picture(asked) and len(asked.split()) == 1:
        raise InputError(f"{shown(asked)} looks like the path of a picture, but there is no such file")
    if not is_text(asked):
        raise InputError(f"{shown(asked)} is not UTF-8, and names no file")
    return None


class Searcher:
    """Searches with one model; what was opened or encoded once is held.

    Args:
        params: of the project.
        layout: of the project.
        model: which is loaded when it is first needed.
        elsewhere: reads a text as one of a caption kind, [K, D], where the LLM is loaded already; None if it cannot.
    """

    def __init__(self, params: Params, layout: Layout, model: Model, elsewhere: Elsewhere | None = None) -> None:
        self.params, self.layout, self.model = params, layout, model
        self._elsewhere = elsewhere or (lambda kind, text: None)
        self._galleries: dict[str, tuple[str, Gallery]] = {}
        self._word_indexes: dict[str, tuple[Gallery, WordIndex]] = {}
        self._texts: dict[tuple[str, str], np.ndarray] = {}

    @property
    def reads_facets(self) -> bool:
        """Whether a text may be asked with one prompt per facet."""
        return FACET_KIND in self.model.text["text"]["template"] and self.model.side.by_facet

    def text(self, text: str, index: str = HELD_OUT, top: int = 10, facets: float = 0.0) -> Found:
        """The `top` nearest pictures for a text.

        Args:
            text: in any language.
            index: as `galleries.gallery_of` takes it.
            top: how many pictures.
            facets: weight w of the facets: a score is (1 - w) <z_0, t> + w mean_j <z_j, t_j>.

        Raises:
            InputError: the index, the model or its text side is missing, or does not fit.
            ParamsError: facets are asked for, but the model has no template with facets, or reads texts without them.
            GateError: what is needed failed a quality gate.
        """
        require_content(text, "the text")
        if facets:
            self._require_kind(FACET_KIND)
        gallery = self.gallery(index)
        if not facets:
            t = self.text_views("raw", text)[:1]
            hits = self._explained(_best(gallery, t, gallery.views[:, 0], top), gallery, t[0])
            return Found(gallery, hits, self._near(gallery, index, hits, by_text=True))
        asked = facets * text_vectors(self.text_views(FACET_KIND, text)[None], gallery.views.shape[1] - 1)
        if facets < 1:
            asked[:, : self.model.dim] += (1 - facets) * self.text_views("raw", text)[:1]
        hits = _best(gallery, asked, picture_vectors(gallery.views), top)
        return Found(gallery, hits, Nearness(None, "that is known only of searches without facets"))

    def picture(self, content: bytes, index: str = HELD_OUT, top: int = 10) -> Found:
        """The `top` nearest pictures to a picture, given by the bytes of its file.

        Raises:
            InputError: they are no picture, or as `text`.
        """
        z = self.model.encode_image(content)
        gallery = self.gallery(index)
        hits = self._explained(_best(gallery, z, gallery.views[:, 0], top), gallery, z[0])
        return Found(gallery, hits, self._near(gallery, index, hits, by_text=False))

    def words(self, asked: str, index: str = HELD_OUT, top: int = 10) -> Found:
        """The `top` pictures in which words, such as `dog, grass`, weigh most; needs a model of words and no LLM.

        Raises:
            ParamsError: the model's dimensions are not words.
            InputError: the model has no such word, or as `text`.
        """
        lexicon = lexicon_of(self.model)
        gallery, wanted = self.gallery(index), asked_words(asked, lexicon.vocabulary)
        found = self._word_index(index, gallery).search(wanted, top)
        captions = gallery.captions([number for number, _, _ in found])
        hits = [
            Hit(number, gallery.keys[number], gallery.paths[number], score, captions.get(number, ""), parts)
            for number, score, parts in found
        ]
        said = "a search by words adds up weights" if hits else "no picture has any of these words"
        return Found(gallery, hits, Nearness(None, said))

    def _word_index(self, index: str, gallery: Gallery) -> WordIndex:
        """The words of a gallery, indexed once until it is opened again."""
        held = self._word_indexes.get(index)
        if held is None or held[0] is not gallery:
            held = self._word_indexes[index] = (gallery, WordIndex(gallery.views[:, 0]))
        return held[1]

    def _explained(self, hits: Sequence[Hit], gallery: Gallery, asked: np.ndarray) -> list[Hit]:
        """The hits with the words of their scores, if the model has words."""
        if (lexicon := self.model.lexicon) is None:
            return list(hits)
        views = gallery.views[:, 0]
        return [replace(hit, words=explained(views[hit.number], asked, lexicon)) for hit in hits]

    def gallery(self, index: str) -> Gallery:
        """The gallery of an index, opened again if its vectors were made anew."""
        version = gallery_version(self.layout, self.model, index)
        held = self._galleries.get(index)
        if held is None or held[0] != version:
            held = self._galleries[index] = (version, gallery_of(self.layout, self.model, index))
        return held[1]

    def text_views(self, kind: str, text: str) -> np.ndarray:
        """[K, D] of a text, read as one of a caption kind.

        Raises:
            InputError: its text side is missing.
            ParamsError: the model was trained without a template for the kind.
        """
        self._require_kind(kind)
        known = self._texts.get((kind, text))
        if known is not None:
            return known

        def write(folder: Path) -> UnitRecord:
            found = self._elsewhere(kind, text)
            np.save(folder / _VECTORS, self.model.text_views(kind, [text])[0] if found is None else found)
            return UnitRecord({"texts": 1})

        inputs = {"text": text, "kind": kind, "model": self.model.of_texts}
        found = np.load(WorkCache(self.layout.work, "query").get(inputs, write).file(_VECTORS))
        if len(self._texts) >= _HELD_TEXTS:
            self._texts.pop(next(iter(self._texts)))
        self._texts[kind, text] = found
        return found

    def _require_kind(self, kind: str) -> None:
        if kind != FACET_KIND or self.reads_facets:
            return
        if FACET_KIND in self.model.text["text"]["template"]:
            raise ParamsError(f"{self.model.name} reads a text as a whole, without facets: ask without them")
        raise ParamsError(f"facet queries need text.template.{FACET_KIND}, which this model was not trained with")

    def _near(self, gallery: Gallery, index: str, hits: Sequence[Hit], by_text: bool) -> Nearness:
        if not hits:
            return Nearness(None, "there are no pictures")
        try:
            held_out = gallery if index == HELD_OUT else self.gallery(HELD_OUT)
        except InputError as error:
            return Nearness(None, f"there is no held-out split to compare with ({error})")
        best, count = hits[0].score, len(gallery.keys)
        if by_text:
            return nearness.of_text(self.params, self.layout, self.model, held_out, best, count)
        return nearness.of_picture(self.layout, self.model, held_out, best, count)


def lexicon_of(model: Model) -> Lexicon:
    """The words of a model.

    Raises:
        ParamsError: the model's dimensions are not words.
    """
    if (lexicon := model.lexicon) is None:
        raise ParamsError(
            f"{model.name} has no words: only models with model.head lexical can be asked by words "
            "(`flame docs words`); ask with a text"
        )
    return lexicon


def _best(gallery: Gallery, asked: np.ndarray, pictures: np.ndarray, top: int) -> list[Hit]:
    order, scores = best_candidates(asked, pictures, top)
    numbers = [int(number) for number in order[0]]
    captions = gallery.captions(numbers)
    return [
        Hit(number, gallery.keys[number], gallery.paths[number], float(score), captions.get(number, ""))
        for number, score in zip(numbers, scores[0], strict=True)
    ]
