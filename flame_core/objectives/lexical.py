"""LexVLA's terms: pictures find their captions by words, and no word may be used for everything.

`lexical` is CLIP's loss (`infonce`) on weights of words: z [V] of a picture from the head of the same name, and each of
its captions' heaviest words, as `flame lexical` stored them, or with `lora` all words that the LLM gives it now. With K
captions per picture there are K such losses, and their mean counts.

`flops` and `overuse` look at a = the mean of z over the whole batch [V]:

    flops = sum_j a_j^2,   overuse = V sum_j a_j^3 / sum_j a_j = V sum_j w_j a_j^2  with  w_j = a_j / sum_k a_k

So overuse weighs each word by how much it is used. Both are small until the training has begun: their weight rises
from 0 over the first steps (`ramp`). Of texts that are trained too, the same loss is added `texts` times. (LexVLA,
arXiv 2407.17827; FLOPs: arXiv 2004.05665.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from flame_core.lexical.values import dense_tensor
from flame_core.objectives.batch import Batch, Features, Moment
from flame_core.objectives.infonce import InfoNCE
from flame_core.objectives.term import Needs, Setup, Term
from flame_core.params import FlopsParams, LexicalLossParams, OveruseParams, TrainParams
from flame_core.processes.ranks import Ranks
from flame_core.vision.lexical_head import LexicalHead
from flame_core.vision.tower import ImageTower


class Lexical(InfoNCE):
    """The texts are the sidecar's, and the drawn ones are not read, unless they are trained."""

    share_name = "lexical"

    @classmethod
    def needs(cls, params: LexicalLossParams) -> Needs:
        return Needs(sidecars=(params.words,))

    @classmethod
    def faults(cls, params: LexicalLossParams, recipe: TrainParams, tower: ImageTower) -> Iterator[str]:
        if not isinstance(tower.projector, LexicalHead):
            yield "it compares words: set model.head to lexical, or take the term out"

    def __init__(self, params: LexicalLossParams, setup: Setup) -> None:
        super().__init__(params, setup)
        self._sidecar, self._trained = params.words, setup.trained_words

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        if self._trained:
            return super().forward(features, batch, ranks)
        words = dense_tensor(batch.extra[self._sidecar], features["z"].shape[-1])
        return super().forward({**features, "t": words}, batch, ranks)


class _Usage(Term):
    """A loss of the mean use of words in the whole batch."""

    share_name: str

    @classmethod
    def needs(cls, params: Any) -> Needs:
        return Needs(texts=params.texts > 0)

    @classmethod
    def faults(cls, params: Any, recipe: TrainParams, tower: ImageTower) -> Iterator[str]:
        if not isinstance(tower.projector, LexicalHead):
            yield "it is of words: set model.head to lexical, or take the term out"
        if params.texts and recipe.lora is None:
            yield "texts counts the words of texts that are trained: set lora, or take texts out"

    def __init__(self, params: FlopsParams | OveruseParams, setup: Setup) -> None:
        super().__init__(params, setup)
        self._ramp, self._texts = params.ramp, params.texts
        self._factor = 1.0

    def prepare(self, batch: Batch, tower: ImageTower, at: Moment, ranks: Ranks) -> Batch:
        """Note how far the weight has risen."""
        self._factor = 1.0 if self._ramp == 0 else min(1.0, at.step / (self._ramp * at.steps))
        return batch

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        factor = self._factor / ranks.world
        use = ranks.gather(features["z"][:, 0, 0].float()).mean(dim=0)  # [V]
        if not self._texts:
            return {self.share_name: factor * self.of_use(use)}
        texts = ranks.gather(features["t"].float().mean(dim=1)).mean(dim=0)  # [V]
        return {"pictures": factor * self.of_use(use), "texts": factor * self._texts * self.of_use(texts)}

    def of_use(self, use: Tensor) -> Tensor:
        """The loss of the mean weights of words [V]."""
        raise NotImplementedError


class Flops(_Usage):
    """The sum of squares."""

    share_name = "flops"

    def of_use(self, use: Tensor) -> Tensor:
        return flops(use)


class Overuse(_Usage):
    """The sum of squares, each weighted by how much the word is used."""

    share_name = "overuse"

    def __init__(self, params: OveruseParams, setup: Setup) -> None:
        super().__init__(params, setup)
        self._detach = params.detach

    def of_use(self, use: Tensor) -> Tensor:
        return overuse(use, detach=self._detach)


def flops(use: Tensor) -> Tensor:
    """sum_j a_j^2 of mean weights a [V]."""
    return use.square().sum()


def overuse(use: Tensor, *, detach: bool = False) -> Tensor:
    """V sum_j a_j^3 / sum_j a_j; with `detach` no gradient flows through the words' weights w."""
    share = use / use.sum()
    return len(use) * ((share.detach() if detach else share) * use.square()).sum()
