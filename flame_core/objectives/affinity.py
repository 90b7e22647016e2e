"""TinyCLIP's term: the student's affinities of the batch's pictures and texts imitate its teacher's.

An affinity is how a picture's similarity is distributed over all texts of the batch, and a text's over all pictures.
With unit vectors z, u of the student and z', u' of the teacher, K texts per picture and B pictures, the loss is

    L = 1/(2 K B) * sum_k sum_i [ CE(softmax_j(s' <z'_i, u'_jk>), s <z_i, u_jk>)      (picture to texts)
                                + CE(softmax_j(s' <z'_j, u'_ik>), s <z_j, u_ik>) ]    (text to pictures)

with CE(p, logits) = - sum_j p_j log softmax_j(logits). Its minimum is the entropy of the teacher's affinities. Both
scales are fixed. No gradient reaches the teacher. Only affinities are compared, so the two spaces may differ.
(TinyCLIP, arXiv 2309.12314; differences to its code: docs/siblings.md.)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from flame_core.objectives.batch import Batch, Features
from flame_core.objectives.clip_teacher import TEACHER_TEXTS
from flame_core.objectives.teacher import taught
from flame_core.objectives.term import Needs, Setup, Term
from flame_core.params import AffinityParams, TrainParams
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.vision.tower import ImageTower


def affinity_loss(logits: Tensor, teacher: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """This rank's share of the loss.

    Args:
        logits: the student's, [B, b, K]: all ranks' pictures with the texts of this rank's b pictures.
        teacher: the teacher's, [B, b, K] or, if its texts do not differ within a picture, [B, b, 1].
        ranks: the ranks that share the batch.
    """
    teacher = teacher.detach()
    whole = ranks.gather(teacher.logsumexp(dim=1)[None]).logsumexp(dim=0)  # [B, K], over all ranks' texts
    over_texts = ranks.gather(logits.logsumexp(dim=1)[None]).logsumexp(dim=0)
    wanted = (teacher - whole[:, None]).exp() + teacher.softmax(dim=0)  # [B, b, K]: of both directions
    total = over_texts.sum() / ranks.world + logits.logsumexp(dim=0).sum() - (wanted * logits).sum()
    return total / (2 * len(logits) * logits.shape[2])


class Affinity(Term):
    """Ranks exchange pictures' vectors, but of the texts only a log-sum-exp per picture. Of z, only z_0 is used."""

    @classmethod
    def needs(cls, params: AffinityParams) -> Needs:
        return Needs(taught=frozenset({"z"}), texts=True)

    @classmethod
    def faults(cls, params: AffinityParams, recipe: TrainParams, tower: ImageTower) -> Iterator[str]:
        if recipe.text_tower is not None and (recipe.teacher is None or recipe.teacher.model is None):
            yield "the teacher's texts are the stored vectors, which a recipe with a text_tower does not read: unset it"
        if recipe.model.head == "lexical":
            yield "model.head lexical gives weights of words, and the texts are vectors: take another head"

    def __init__(self, params: AffinityParams, setup: Setup) -> None:
        super().__init__(params, setup)
        self._scale, self._teacher_scale = params.scale, params.teacher_scale

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        with torch.autocast(features["z"].device.type, enabled=False):
            texts = features["t"].float()
            logits = self._scale * _products(ranks.gather(features["z"][:, 0, 0].float()), texts)
            own = batch.extra.get(TEACHER_TEXTS)  # [b, E] in the teacher's space, if it has one
            theirs = batch.texts.float() if own is None else own.float()[:, None]
            teacher = self._teacher_scale * _products(ranks.gather(batch.extra[taught("z")]), theirs)
            return {"affinity": affinity_loss(logits, teacher, ranks)}


def _products(pictures: Tensor, texts: Tensor) -> Tensor:
    """[B, b, K] of pictures [B, D] and texts [b, K, D]."""
    return torch.einsum("id,jkd->ijk", pictures, texts)
