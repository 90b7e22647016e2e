"""Which patches gave a picture its words, for a model whose dimensions are words (`model.head: lexical`).

    z_j = max over patches p of w_pj,   w_pj = phi(y_p Z_j) / length

`length` is that of the picture's weights before they become a unit vector. So the largest w_pj of a word is its weight
in the picture, and the patch that has it is the one that the word comes from. (LexVLA, arXiv 2407.17827.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flame_core.inline_pictures import square_view
from flame_core.lexical.vocabulary import Word

if TYPE_CHECKING:
    from torch import Tensor

    from flame_core.vision.image_encoder import ImageEncoder
    from flame_core.vision.tower import ImageTower


@dataclass(frozen=True)
class WordMaps:
    """A picture by its row in the split.

    Attributes:
        view: the centre square that the model sees, as a data URI.
        words: its W heaviest words with their weights, the heaviest first.
        weights: [W, g, g], what each patch gives to each word.
    """

    picture: int
    view: str
    words: list[tuple[str, float]]
    weights: np.ndarray


def word_maps(
    encoder: ImageEncoder,
    z: np.ndarray,
    words: Sequence[Word],
    rows: Sequence[int],
    count: int,
    jpeg: Callable[[int], bytes],
) -> list[WordMaps]:
    """The maps of the `count` heaviest words of some pictures.

    Args:
        encoder: has the head `lexical` and a grid of patches.
        z: [N, V] its unit vectors of the split's pictures.
        words: V words.
        rows: of the pictures in the split.
        count: W.
        jpeg: returns a picture by its row in the split.
    """
    found = []
    for row in rows:
        heaviest = np.argsort(-z[row], kind="stable")[:count]
        of_patches = weights_by_patch(encoder, jpeg(row), heaviest)
        own = [(words[place].text, float(z[row, place])) for place in heaviest]
        found.append(WordMaps(row, square_view(jpeg(row)), own, np.moveaxis(of_patches, -1, 0)))
    return found


def weights_by_patch(encoder: ImageEncoder, jpeg: bytes, places: np.ndarray) -> np.ndarray:
    """What each patch of a picture gives to the words at W places of the vocabulary, [g, g, W]."""
    import torch

    def read(tower: ImageTower, pictures: Tensor) -> Tensor:
        weights = tower.word_weights(pictures, torch.from_numpy(places).to(pictures.device))  # [1, N, W]
        return weights.unflatten(1, tower.backbone.patch_embed.grid_size)

    return encoder.encode_with(read, [jpeg])[0]
