"""What the search server answers, as JSON values: searches, vectors, and the patches of a picture in words.

One model and its LLM stay loaded. A client names an index by a name that the server was started with, and a picture by
its number in there or by its bytes, never by a path.
"""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flame_core.data.picture_decoding import PictureError
from flame_core.errors import InputError
from flame_core.inline_pictures import as_jpeg, centre_square, smaller
from flame_core.measuring.texts import FACET_KIND
from flame_core.model.given_pictures import of_file
from flame_core.names import shown
from flame_core.patches.lm_head import LMHead
from flame_core.patches.meaning import open_head
from flame_core.patches.word_maps import weights_by_patch
from flame_core.search.ask import Found, Searcher, lexicon_of
from flame_core.search.galleries import HELD_OUT, Gallery
from flame_core.search.words import asked_words
from flame_core.text.caption_tokens import require_content

if TYPE_CHECKING:
    from flame_core.tuning.classifier import Classifier
    from flame_core.web_search.requests import ClassifyRequest, EncodeRequest, PatchRequest, SearchRequest

_MEAN_OF = 12  # held-out pictures whose patches give the direction that all patches share


class UnknownError(InputError):
    """The client names something that is not there."""


class SearchService:
    """Answers for one model.

    Args:
        searcher: holds the model.
        indexes: names of what can be searched, the first by default.
    """

    def __init__(self, searcher: Searcher, indexes: Sequence[str]) -> None:
        self._searcher, self._indexes = searcher, indexes
        self._lock = threading.Lock()  # one computation at a time: it uses all cores, or the GPU
        self._opened: tuple[Any, Classifier] | None = None  # the state of the head's file when it was opened, the head

    @property
    def root(self) -> Path:
        """The root of the run; messages name its files relative to it."""
        return self._searcher.layout.root

    def about(self) -> dict[str, Any]:
        """The model and what can be searched."""
        model = self._searcher.model
        return {
            "model": model.name,
            "version": model.version,
            "title": model.title,
            "dimensions": model.dim,
            "facets": self._searcher.reads_facets,
            "patches": model.encoder.gives_patches,
            "words": model.lexicon is not None,
            "indexes": list(self._indexes),
            "of_texts": model.of_texts,
        }

    def open(self) -> None:
        """Load the image tower, and the vectors of the first index.

        Raises:
            FlameError: one of them is missing or damaged.
        """
        with self._lock:
            self._searcher.model.open()
            self._searcher.gallery(self._indexes[0])

    def load_texts(self) -> None:
        """Load what reads texts, such as the LLM."""
        with self._lock:
            self._searcher.model.encode_text("a text that is not stored")

    @contextmanager
    def _current(self) -> Iterator[None]:
        """One request at a time, by the model that is in its folder."""
        with self._lock:
            if (why := self._searcher.model.outdated()) is not None:
                raise InputError(f"{why}: start `flame serve` again")
            yield

    def search(self, asked: SearchRequest) -> dict[str, Any]:
        """The nearest pictures to a text, to a picture, or to a picture of the index."""
        with self._current():
            index = self._named(asked.index)
            if asked.words is not None:
                found = self._searcher.words(asked.words, index, asked.top)
            elif asked.text is not None:
                found = self._searcher.text(asked.text, index, asked.top, asked.facets)
            else:
                found = self._searcher.picture(self._picture(asked.picture, asked.number, index), index, asked.top)
        return self._answer(found)

    def encode(self, asked: EncodeRequest) -> dict[str, Any]:
        """Unit vectors of texts and pictures, as nested lists."""
        for place, text in enumerate(asked.texts):
            require_content(text, f"texts[{place}]")
        with self._current():
            kind = FACET_KIND if asked.facets else "raw"
            texts = [self._searcher.text_views(kind, text) for text in asked.texts]  # [K, D] each
            pictures = [_decoded(each, f"pictures[{place}]") for place, each in enumerate(asked.pictures)]
            z = self._searcher.model.image_views(pictures) if pictures else np.zeros((0, 1, 1))
        return {
            "texts": [(views if asked.facets else views[0]).tolist() for views in texts],
            "pictures": (z if asked.facets else z[:, 0]).tolist(),
        }

    def classify(self, asked: ClassifyRequest) -> dict[str, Any]:
        """The most probable classes of each picture, by the tuned head of this model."""
        with self._current():
            pictures = [_decoded(each, f"pictures[{place}]") for place, each in enumerate(asked.pictures)]
            found = self._classifier().classify(pictures, asked.top)
        return {"pictures": [[{"class": name, "probability": share} for name, share in own] for own in found]}

    def patches(self, asked: PatchRequest) -> dict[str, Any]:
        """The words of a picture's patches [g][g]; their cosines [g][g] with a text if one is given.

        For words that are given, what each patch gives to each of them: [g][g], whose largest is its weight in the
        picture (`patches.word_maps`).
        """
        with self._current():
            model = self._searcher.model
            if not model.encoder.gives_patches:
                raise InputError("this model's tower has no patches in the space of the texts")
            jpeg = self._prepared(self._picture(asked.picture, asked.number, self._named(asked.index)))
            patches = self._patches_of([jpeg])[0]  # [g, g, D]
            words = None
            if (lexicon := model.lexicon) is not None:
                words = lexicon.heaviest_words(patches).tolist()
            elif self._head is not None:
                flat = (patches - self._shared).reshape(-1, model.dim)
                first = [row[0] for row in self._head.top_words(flat, 1)]
                words = np.array(first, dtype=object).reshape(patches.shape[:2]).tolist()
            likeness = None
            if asked.text is not None:
                require_content(asked.text, "the text")
                likeness = (patches @ self._searcher.text_views("raw", asked.text)[0]).tolist()
            given = None if asked.words is None else self._given(asked.words, jpeg)
        return {"grid": list(patches.shape[:2]), "words": words, "likeness": likeness, "given": given}

    def _given(self, asked: str, jpeg: bytes) -> list[dict[str, Any]]:
        """What the patches of a picture give to words that are asked for; tokens of one word are added up."""
        model = self._searcher.model
        wanted = asked_words(asked, lexicon_of(model).vocabulary)
        found = [weights_by_patch(model.encoder, jpeg, np.array(places)).sum(axis=-1) for places in wanted.places]
        return [{"word": word, "patches": grid.tolist()} for word, grid in zip(wanted.texts, found, strict=True)]

    def picture(self, index: str, number: int, side: int, square: bool) -> bytes:
        """A JPEG of a picture, at most `side` pixels long, or of its centre square, which the model sees."""
        with self._current():
            jpeg = self._prepared(self._picture(None, number, self._named(index)))
        return as_jpeg((centre_square if square else smaller)(jpeg, side))

    def _answer(self, found: Found) -> dict[str, Any]:
        near = found.nearness
        hits = [
            {"number": hit.number, "key": hit.key, "score": hit.score, "caption": hit.caption, "words": hit.words}
            for hit in found.hits
        ]
        return {
            "gallery": found.gallery.title,
            "hits": hits,
            "nearness": {"near": near.near, "chance": near.chance, "said": str(near)},
        }

    def _named(self, index: str | None) -> str:
        if index is None:
            return self._indexes[0]
        if index not in self._indexes:
            raise UnknownError(f"index {shown(index)} is not one of this server's: {', '.join(self._indexes)}")
        return index

    def _picture(self, encoded: str | None, number: int | None, index: str) -> bytes:
        if encoded is not None:
            return _decoded(encoded, "picture")
        gallery = self._searcher.gallery(index)
        if number is None or not 0 <= number < len(gallery.keys):
            raise UnknownError(f"{index} has pictures 0 to {len(gallery.keys) - 1:,}, not {number}")
        return gallery.picture(number)

    def _prepared(self, content: bytes) -> bytes:
        try:
            return of_file(content, self._searcher.model.ingest)
        except PictureError as error:
            raise InputError(f"the picture cannot be used: {error.reason}: {error.detail}") from None

    def _patches_of(self, jpegs: Sequence[bytes]) -> np.ndarray:
        """[N, g, g, D]."""
        from flame_core.suite.models.trained import patch_grid

        return self._searcher.model.encoder.encode_with(patch_grid, list(jpegs))

    def _classifier(self) -> Classifier:
        """The head that `flame tune` made last for this model; opened once."""
        from flame_core.tuning.classifier import HEAD, Classifier

        model = self._searcher.model
        folder = self._searcher.layout.heads / model.folder.name
        if not folder.is_dir():
            raise UnknownError(
                f"there is no head for {model.name}: name it under `tune` in the params, `flame run tune`"
            )
        file = (folder / HEAD).stat() if (folder / HEAD).is_file() else None
        state = file and (file.st_ino, file.st_mtime_ns, file.st_size)
        if self._opened is None or self._opened[0] != state:
            self._opened = (state, Classifier(folder, model))
        return self._opened[1]

    @cached_property
    def _head(self) -> LMHead | None:
        in_words = self._searcher.model.side.in_words
        return open_head(self._searcher.params, self._searcher.layout) if in_words else None

    @cached_property
    def _shared(self) -> np.ndarray:
        """[D]: the mean patch, a direction that carries no meaning, of some pictures."""
        gallery: Gallery = self._searcher.gallery(HELD_OUT if HELD_OUT in self._indexes else self._indexes[0])
        step = max(1, len(gallery.keys) // _MEAN_OF)
        some = [self._prepared(gallery.picture(number)) for number in range(0, len(gallery.keys), step)[:_MEAN_OF]]
        return self._patches_of(some).mean(axis=(0, 1, 2))


def _decoded(encoded: str, where: str) -> bytes:
    """The bytes of a file in base64, also with line breaks, as `base64` writes them, or as a data: URI."""
    content = encoded.partition(",")[2] if encoded.startswith("data:") else encoded
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{where} is not base64 of a file: {error}") from None
