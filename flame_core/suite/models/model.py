"""The interface of all models: encode pictures and texts and, if a model has them, features and patches.

Models are named by their source:

    transformers:openai/clip-vit-base-patch16     a dual encoder, from a folder or a hub id (`transformers_clip`)
    open_clip:ViT-B-16@laion2b_s34b_b88k          if the package open_clip is installed (`open_clip_model`)
    timm:vit_small_patch16_224                    a backbone, for linear probes (`timm_backbone`)
    data/models/<recipe>                          a tower of this project (`trained`)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flame_core.errors import ParamsError

if TYPE_CHECKING:
    from torch import nn


class NotOffered(Exception):
    """The model cannot do what a task needs; the message says why."""


@dataclass(frozen=True)
class PictureSide:
    """A dual encoder's picture side, to run on pixels that are tensors already, such as those of a training.

    Attributes:
        module: pictures [b, 3, S, S], normalised by `mean` and `std`, to unit vectors [b, E]; in evaluation mode.
        size: S.
        dim: E.
        mean, std: of the three channels.
    """

    module: nn.Module
    size: int
    dim: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Model(ABC):
    """A model under evaluation.

    Attributes:
        name: its name in reports.
        source: where it comes from, for readers.
        identity: what its embeddings depend on besides the input, as JSON values.
    """

    name: str
    source: str
    identity: Mapping[str, Any]

    @abstractmethod
    def pictures(self, pictures: Sequence[bytes]) -> np.ndarray:
        """Encoded pictures (JPEG, PNG, ...) to unit vectors [N, D] in float32."""

    @abstractmethod
    def texts(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Texts to vectors [N, D] in float32, whose inner product with a picture's is their similarity.

        `kind` is `Benchmark.text_kind`: how the text is presented to the LLM. Models without an LLM ignore it.
        """

    def views(self, pictures: Sequence[bytes]) -> np.ndarray:
        """[N, 1 + F, D] in float32: the picture vectors, then those of F facets if the model has any."""
        return self.pictures(pictures)[:, None]

    def facets(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """[N, K, D] in float32: the K facets of each text, if the model has any (`facet_pairing`)."""
        return self.texts(kind, texts)[:, None]

    def features(self, pictures: Sequence[bytes]) -> np.ndarray:
        """[N, C] in float32, for linear probes: by default the picture vectors."""
        return self.pictures(pictures)

    def patches(self, pictures: Sequence[bytes]) -> np.ndarray:
        """Unit vectors [N, g, g, D] of the centre square's patches, in the space of the texts."""
        raise NotOffered("it has no patch vectors in the space of its texts")

    def picture_side(self) -> PictureSide:
        """The picture side without preprocessing of files."""
        raise NotOffered("it has no texts in the space of its pictures")


def open_model(name: str, source: str, device: str) -> Model:
    """Somebody else's model, by an entry of `evaluate.baselines`.

    Raises:
        InputError: it cannot be read, or its weights have another shape.
        ResourceError: it cannot be fetched, or a package is missing.
    """
    kind, _, rest = source.partition(":")
    if kind == "transformers":
        from flame_core.suite.models.transformers_clip import TransformersModel

        return TransformersModel(name, rest, device)
    if kind == "open_clip":
        from flame_core.suite.models.open_clip_model import OpenClipModel

        return OpenClipModel(name, rest, device)
    if kind == "timm":
        from flame_core.suite.models.timm_backbone import TimmBackbone

        return TimmBackbone(name, rest, device)
    raise ParamsError(f"evaluate.baselines.{name}: {source!r} must start with transformers:, open_clip: or timm:")
