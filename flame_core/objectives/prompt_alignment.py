"""P-Former's term: the prompts of a picture come near the reference prompts of its caption.

    share = mean over B, n and H of (v - p)^2

v are the prompts of the tower's connector and p those of the frozen head of `flame prompts` for the caption that was
drawn for the picture, the first one if there are several. The weight of the term is the paper's omega (10 beside
BLIP-2's first losses, 100 beside the LM loss or, on videos, alone), which depends on how large the LLM's input
embeddings are. With `relative`, the share is divided by their mean square, so that it starts near 1 or 2 with any LLM.
The LLM is not needed.
(P-Former, arXiv 2307.07063.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from flame_core.errors import ParamsError
from flame_core.objectives.batch import Batch, Features, Moment
from flame_core.objectives.term import Needs, Setup, Term
from flame_core.params import PromptsTermParams, TrainParams
from flame_core.processes.ranks import Ranks
from flame_core.soft_prompts.prompt_head import PromptHead
from flame_core.vision.tower import ImageTower


class PromptAlignment(Term):
    """Each rank computes the share of its own pictures."""

    @classmethod
    def needs(cls, params: PromptsTermParams) -> Needs:
        return Needs(reads=frozenset({"prompts"}), texts=True)

    @classmethod
    def faults(cls, params: PromptsTermParams, recipe: TrainParams, tower: ImageTower) -> Iterator[str]:
        if tower.connector is None:
            yield "pictures have no prompts: give the tower a connector, such as `model: {connector: {prompts: 16}}`"
        if recipe.prompts is None:
            yield "it needs the head that `flame prompts` made: write `prompts: data/prompts` into the recipe"
        for name in ("text_tower", "text_projection", "lora"):
            if getattr(recipe, name) is not None:
                yield f"its head reads stored vectors of captions, and the recipe trains its texts: set {name} to null"

    def __init__(self, params: PromptsTermParams, setup: Setup) -> None:
        super().__init__(params, setup)
        if setup.prompts is None:
            raise ParamsError(
                "the term prompts needs the folder of `flame prompts`, and none is given", key="train.prompts"
            )
        self._hold, self._factor = 1 - params.decay, 1.0
        self.head = PromptHead.load(setup.prompts)
        connector = setup.tower.connector
        require_fit(self.head, connector and connector.prompts, setup.hidden, setup.prompts)
        self._unit = self.head.config.scale**2 if params.relative else 1.0

    def prepare(self, batch: Batch, tower: ImageTower, at: Moment, ranks: Ranks) -> Batch:
        """Note how far the weight has fallen."""
        left = 1 - at.step / at.steps
        self._factor = min(1.0, left / (1 - self._hold)) if self._hold < 1 else 1.0
        return batch

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        with torch.autocast(batch.pictures.device.type, enabled=False):
            v = features["prompts"][:, 0].float()  # [b, n, H]
            p = self.head(features["t"][:, 0].float())
            return {"prompts": self._factor * alignment(v, p) / (self._unit * ranks.world)}

    def frozen(self) -> Iterable[nn.Module]:
        return (self.head,)

    def scalars(self) -> dict[str, float | Tensor]:
        return {"omega": self.weight * self._factor / self._unit}


def alignment(v: Tensor, p: Tensor) -> Tensor:
    """The mean squared difference of prompts v and reference prompts p [B, n, H]."""
    return (v - p.detach()).square().mean()


def require_fit(head: PromptHead, prompts: int | None, vector: int, folder: Path) -> None:
    """Refuse a head with another number of prompts than a connector, or that reads vectors of other dimensions.

    Raises:
        ParamsError: names both numbers.
    """
    own = head.config
    if prompts != own.prompts:
        raise ParamsError(
            f"{prompts}, and the head in {folder} makes {own.prompts} prompts: set it to {own.prompts}, or "
            f"prompts.count to {prompts}",
            key="train.model.connector.prompts",
        )
    if vector != own.vector:
        raise ParamsError(
            f"the head in {folder} reads vectors of {own.vector} numbers, and the recipe's texts have {vector}: run "
            "`flame prompts` again"
        )
