"""`optimizer` of a recipe: AdamW, and which weights learn how fast and from when."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from flame_core.params.section import Positive, Section

_Beta = Annotated[float, Field(ge=0, lt=1)]


class HeadFirst(Section):
    """How long a backbone with trained weights stays as it is, while its head learns to read it."""

    steps: Positive | None = Field(default=None, description="how many steps; or write epochs")
    epochs: Positive | None = Field(default=None, description="how many epochs; or write steps")

    @model_validator(mode="after")
    def _says_one(self) -> HeadFirst:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("write steps or epochs")
        return self

    def steps_of(self, steps_per_epoch: int) -> int:
        """The number of steps."""
        return self.steps or (self.epochs or 0) * steps_per_epoch


class OptimizerParams(Section):
    """AdamW; no decay on 1-d parameters."""

    learning_rate: float = Field(
        default=5e-4, gt=0, description="highest; after the warm-up it falls to 0 along a cosine"
    )
    betas: tuple[_Beta, _Beta] = Field(default=(0.9, 0.95), description="of AdamW")
    eps: float = Field(default=1e-8, gt=0, description="of AdamW")
    weight_decay: float = Field(default=0.5, ge=0, description="of AdamW; weights of one dimension have none")
    clip_grad_norm: float | None = Field(
        default=None, gt=0, description="a gradient of a larger norm is scaled down to it; null: never"
    )
    multipliers: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        exclude_if=lambda value: not value,  # a recipe without them is recorded as it always was
        description="of the learning rate of a tower's weights, by what their names begin with, such as "
        "image.backbone.blocks.0; the longest such name counts; 0 freezes them",
    )
    layer_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        exclude_if=lambda value: value is None,  # as `multipliers`
        description="factor of the learning rate from each layer of the backbone to the one before it; its last layer "
        "and the head have the whole rate; null: all layers have it",
    )
    head_first: HeadFirst | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # as `multipliers`
        description="{steps: n} or {epochs: n} in which the backbone stays as it is and all others learn; then it "
        "learns too; null: from the start",
    )
