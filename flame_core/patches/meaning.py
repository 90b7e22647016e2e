"""What single patches mean: words from the LLM's output matrix, similarity to facets, and neighbours.

The projector maps a patch into the LLM's space, which also holds a text's facets. Its word is the word in the training
captions whose row of the output matrix (`lm_head`) has the largest inner product with the patch minus the mean over the
shown pictures; the mean is subtracted because all patches share a direction that carries no meaning. This helps to
understand a model but is not a metric; PatchDis is the metric (`tasks.segmentation`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flame_core.captions.table import read_captions
from flame_core.digest import text_sha256
from flame_core.inline_pictures import square_view
from flame_core.layout import Layout
from flame_core.lexical.text_side import LexicalTexts
from flame_core.measuring.held_out import HeldOut
from flame_core.measuring.similarity import best_candidates
from flame_core.measuring.texts import FACET_KIND, stored_texts
from flame_core.params import CaptionKind, Params
from flame_core.patches.lm_head import LMHead
from flame_core.text.llm import SOURCE

PICTURES, WORDS, NEIGHBOURS = 6, 6, 4
_WORD = re.compile(r"[^\W\d_]{3,}")
_CAPTIONS = 20_000  # training captions to read words from, in whole shards


@dataclass(frozen=True)
class FacetMap:
    """A text's facet j and the cosine of every patch with it, [g, g]."""

    facet: int
    cosine: np.ndarray


@dataclass(frozen=True)
class PictureMeaning:
    """One picture.

    Attributes:
        picture: its row in the split.
        view: the centre square that the model sees, as a data URI.
        patch_words: [g][g] the first word of each patch; empty where no LLM folder is at hand, or where the LLM's
            output matrix does not name directions of the model's space.
        words: the most frequent of them with their share of the patches.
        text: the caption whose facets are mapped.
        maps: one per facet.
        neighbours: (row, cosine) of the nearest pictures.
    """

    picture: int
    view: str
    patch_words: list[list[str]]
    words: list[tuple[str, float]]
    text: str
    maps: list[FacetMap]
    neighbours: list[tuple[int, float]]


def read_meaning(
    params: Params,
    layout: Layout,
    held_out: HeldOut,
    jpeg: Callable[[int], bytes],
) -> list[PictureMeaning]:
    """The meaning of some held-out pictures, drawn by the digest of their keys.

    Args:
        params: the run's.
        layout: has the LLM's folder.
        held_out: the model, its results, and the captions of the split.
        jpeg: returns a picture by its row in the split.
    """
    from flame_core.suite.models.trained import patch_grid

    evaluation = held_out.evaluation
    language = params.evaluate.train_language
    kind: CaptionKind = FACET_KIND if evaluation.facets else "raw"
    texts = stored_texts(held_out.captions, kind, language)
    rows = [row for row, key in enumerate(evaluation.keys) if key in texts]
    rows = sorted(rows, key=lambda row: text_sha256("meaning " + evaluation.keys[row]))[:PICTURES]
    patches = held_out.encoder.encode_with(patch_grid, [jpeg(row) for row in rows])  # [N, g, g, D]
    side = held_out.texts
    if isinstance(side, LexicalTexts):
        words = side.lexicon.heaviest_words(patches).tolist()
    else:
        words = _patch_words(params, layout, patches) if side.in_words else [[] for _ in rows]
    return [
        PictureMeaning(
            row,
            square_view(jpeg(row)),
            words[i],
            frequent(words[i]),
            texts[evaluation.keys[row]],
            [
                FacetMap(j, patches[i] @ t)
                for j, t in enumerate(held_out.texts.lookup(kind, [texts[evaluation.keys[row]]])[0], start=1)
            ],
            nearest(evaluation.z, row, NEIGHBOURS),
        )
        for i, row in enumerate(rows)
    ]


def _patch_words(params: Params, layout: Layout, patches: np.ndarray) -> list[list[list[str]]]:
    """[N][g][g] first words; empty grids if there is no LLM folder, or its tokens are not words."""
    count, height, width, dimensions = patches.shape
    head = open_head(params, layout)
    if head is None:
        return [[] for _ in range(count)]
    flat = patches.reshape(-1, dimensions)
    found = head.top_words(flat - flat.mean(axis=0), 1)
    first = np.array([row[0] for row in found], dtype=object).reshape(count, height, width)
    return first.tolist()


def open_head(params: Params, layout: Layout) -> LMHead | None:
    """The words of the training captions in the LLM's output matrix; None without the LLM's folder, or such words."""
    from flame_core.text.llm import load_tokenizer

    folder = layout.llm / params.llm.name
    if not (folder / SOURCE).is_file():
        return None
    head = LMHead(
        folder, load_tokenizer(folder, params.llm), caption_words(layout.captions, params.evaluate.train_language)
    )
    return head if head.words else None


def caption_words(captions: Path, language: str) -> set[str]:
    """The words of three letters or more, in lower case, in training captions of a language."""
    words: set[str] = set()
    read = 0
    for path in sorted((captions / "train").glob("*.parquet")):
        texts = [caption.text for caption in read_captions(path) if caption.language == language]
        words.update(word for text in texts for word in _WORD.findall(text.lower()))
        read += len(texts)
        if read >= _CAPTIONS:
            break
    return words


def frequent(grid: Sequence[Sequence[str]]) -> list[tuple[str, float]]:
    """The most frequent words of a grid with their share; equally frequent words in alphabetical order."""
    counts = Counter(word for row in grid for word in row)
    total = counts.total()
    return [(word, n / total) for word, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:WORDS]]


def nearest(z: np.ndarray, row: int, count: int) -> list[tuple[int, float]]:
    """(row, cosine) of the `count` pictures nearest to picture `row`, without itself."""
    order, scores = best_candidates(z[row : row + 1], z, count + 1)
    pairs = zip(order[0].tolist(), scores[0].tolist(), strict=True)
    return [(other, score) for other, score in pairs if other != row][:count]
