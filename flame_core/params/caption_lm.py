"""`caption_lm`: a tower with a connector learns to make the frozen LLM write captions of pictures (P-Former)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from flame_core.params.augmentation import AugmentationParams
from flame_core.params.model_links import ModelLink
from flame_core.params.section import CaptionKind, Fraction, Positive, Section
from flame_core.params.towers import ConnectorParams


class CaptionWriting(Section):
    """How the LLM writes."""

    max_new_tokens: Positive = Field(default=32, description="of a text, at most")
    num_beams: Positive = Field(default=1, description="1: greedily")
    repetition_penalty: float = Field(default=1.0, gt=0, description="above 1, a token that was written is less likely")
    do_sample: bool = Field(default=False, description="draw each token by its probability")
    temperature: float = Field(default=1.0, gt=0, description="of what is drawn")
    top_p: float = Field(default=1.0, gt=0, le=1, description="draw from the likeliest tokens of this share only")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of what is drawn")

    @property
    def options(self) -> dict[str, float | int | bool]:
        """Options of transformers' `generate`."""
        drawn = ("temperature", "top_p") if self.do_sample else ()
        return {name: getattr(self, name) for name in _ALWAYS + drawn}


_ALWAYS = ("max_new_tokens", "num_beams", "repetition_penalty", "do_sample")


class CaptionLMGates(Section):
    """Thresholds of the checks of `flame caption-lm`."""

    max_loss_ratio: float = Field(
        default=1.0, gt=0, description="last loss over first loss must stay below this; else the captioner is refused"
    )
    min_gain: float = Field(
        default=0.0,
        description="nats per token by which a held-out caption is likelier behind the prompts of its own picture than "
        "behind another's; only warns",
    )
    min_distinct: Fraction = Field(default=0.2, description="share of different texts among those written; only warns")


class CaptionLMParams(ModelLink):
    """Training through the frozen LLM, from the model of a recipe (or a folder) with a connector."""

    start: Literal["aligned", "unaligned", "scratch"] = Field(
        default="aligned",
        description="aligned: tower and connector of the model; unaligned: its tower with a new connector; scratch: "
        "both new, of the same shape",
    )
    connector: ConnectorParams | None = Field(
        default=None, description="of a start that is not aligned; null: as in the model"
    )
    kinds: list[CaptionKind] = Field(default=["raw"], min_length=1, description="kinds of captions to learn")
    template: str | None = Field(
        default=None, description="what the LLM reads, as `prompts.template`; null: that of the model's prompts"
    )
    max_tokens: Positive = Field(default=32, description="of a caption; longer ones are cut")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="of the LLM")
    augmentation: AugmentationParams = AugmentationParams()
    steps: Positive = Field(default=1000, description="of the training")
    batch_size: Positive = Field(default=32, description="pictures of a step")
    learning_rate: float = Field(default=5e-4, gt=0, description="of the connector; cosine to 0")
    tower_rate: float = Field(default=0.1, ge=0, description="of the tower, as a share of the connector's; 0: frozen")
    warmup_steps: int = Field(default=50, ge=0, description="in which the learning rate rises from 0")
    weight_decay: float = Field(default=0.05, ge=0, description="of AdamW")
    clip_grad_norm: float | None = Field(
        default=1.0, gt=0, description="a gradient of a larger norm is scaled down to it; null: never"
    )
    pairs: Positive | None = Field(default=None, description="training pairs at most, the first by key; null: all")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of first weights, the order of pictures and crops")
    cpu_threads: Positive = Field(default=2, description="of torch on a CPU; sums depend on it")
    written: Positive = Field(default=200, description="held-out pictures that get captions at the end, at most")
    writing: CaptionWriting = CaptionWriting()
    gates: CaptionLMGates = CaptionLMGates()

    @model_validator(mode="after")
    def _names_one(self) -> CaptionLMParams:
        if (self.recipe is None) == (self.path is None):
            raise ValueError("name one model: a recipe or a path")
        if self.start == "aligned" and self.connector is not None:
            raise ValueError("start aligned takes the model's own connector: drop `connector`, or start unaligned")
        return self
