"""ProCLIP's first stage: the layers behind the LLM learn to give a text the vector that a CLIP gives it.

The loss is that of `structure.alignment`, of each of a sample's K projected texts, with the CLIP's own vector of the
sample's captions as the target; its mean over K. It reads no pictures. (ProCLIP, arXiv 2510.18795; there each caption
has its own target, here all captions of a picture have their mean.)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from flame_core.data.sidecars import Sidecar
from flame_core.errors import ParamsError
from flame_core.objectives.batch import Batch, Features
from flame_core.objectives.clip_teacher import TEACHER_TEXTS
from flame_core.objectives.structure import alignment
from flame_core.objectives.term import Needs, Setup, Term
from flame_core.params import TextDistillationParams, TrainParams
from flame_core.processes.ranks import Ranks
from flame_core.vision.tower import ImageTower


class TextDistillation(Term):
    """Its targets are stored before the first step (`training.teacher_texts`), so the CLIP never runs in one."""

    @classmethod
    def needs(cls, params: TextDistillationParams) -> Needs:
        return Needs(reads=frozenset(), texts=True)

    @classmethod
    def faults(cls, params: TextDistillationParams, recipe: TrainParams, tower: ImageTower) -> Iterator[str]:
        if recipe.teacher is None or recipe.teacher.model is None:
            yield (
                "it learns from the texts of a CLIP: name one as teacher.model, transformers:<folder or hub id> or "
                "open_clip:<architecture>@<weights>"
            )
        if recipe.text_projection is None:
            yield "it trains the layers behind the LLM, and the recipe has none: set text_projection"

    def __init__(self, params: TextDistillationParams, setup: Setup) -> None:
        super().__init__(params, setup)
        self._structure = params.structure
        if TEACHER_TEXTS not in setup.sidecars:
            raise ParamsError(
                "the term text_distillation has no texts of a teacher: set teacher.model", key="train.terms"
            )
        (width,) = Sidecar(setup.sidecars[TEACHER_TEXTS]).manifest.shape
        if width != setup.hidden:
            raise ParamsError(
                f"{setup.hidden}, and the teacher's texts have {width} dimensions: set it to {width}",
                key="train.text_projection.dim",
            )

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        with torch.autocast(features["t"].device.type, enabled=False):
            wanted = batch.extra[TEACHER_TEXTS].float()  # [b, D]
            shares = [alignment(t, wanted, self._structure, ranks) for t in features["t"].float().unbind(dim=1)]
            return {"text_distillation": torch.stack(shares).mean()}
