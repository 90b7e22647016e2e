"""`adapt_llm`: the LLM learns to embed captions, with LoRA, before `embed` reads any (LLM2CLIP); optional."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from flame_core.params.changed_values import changed_values
from flame_core.params.section import CaptionKind, Fraction, Positive, Reading, Section
from flame_core.params.towers import LoraParams


class AdaptLLMGates(Section):
    """Thresholds of the checks of `flame adapt-llm`."""

    min_gain: float = Field(
        default=0.0, description="the loss of held-out captions must fall by more than this share; else it is refused"
    )
    max_ceiling_drop: Fraction = Field(
        default=0.05, description="of the recall of any language's captions, in absolute terms; only warns"
    )


class AdaptLLMParams(Section):
    """Two captions of one picture come near each other, and those of other pictures go away (LLM2CLIP's first stage).

    The captions are those of the training split, read with the templates and the layer of `text`.
    """

    kinds: list[CaptionKind] = Field(
        default=["raw", "short"], min_length=1, description="kinds of captions in the language of training"
    )
    languages: list[str] | Literal["all"] = Field(
        default=[], description="other languages whose raw captions of the same pictures are learned; all: every one"
    )
    reading: Reading = Field(
        default="facets", description="how captions are read: by their first facet, or as sentences (text.sentence)"
    )
    lora: LoraParams = LoraParams(rank=16, alpha=32.0)
    last_layers: Positive | None = Field(
        default=None, description="how many of the layers that are read get adapters, the last ones; null: all"
    )
    temperature: float = Field(default=0.05, gt=0, description="of the contrast")
    steps: Positive = Field(default=500, description="of the training")
    batch_size: int = Field(default=64, ge=2, description="pictures per step, with two captions each")
    micro_batch_size: Positive | None = Field(
        default=None, description="pictures whose captions are in memory at once; null: the whole batch"
    )
    learning_rate: float = Field(default=2e-4, gt=0, description="highest; cosine to 0")
    warmup_steps: int = Field(default=20, ge=0, description="in which the learning rate rises from 0")
    weight_decay: float = Field(default=0.0, ge=0, description="of AdamW")
    held_out: float = Field(default=0.1, gt=0, lt=1, description="share of the training pictures that are not learned")
    tested: int = Field(default=128, ge=2, description="held-out pictures whose loss is measured, at most")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the adapters' first weights and the order of pictures")
    gates: AdaptLLMGates = AdaptLLMGates()

    @property
    def identity(self) -> dict[str, Any]:
        """The values that decide what is learned."""
        return {name: value for name, value in changed_values(self).items() if name != "gates"}

    @model_validator(mode="after")
    def _parts_are_smaller(self) -> AdaptLLMParams:
        if self.micro_batch_size is not None and self.micro_batch_size > self.batch_size:
            raise ValueError(f"micro_batch_size {self.micro_batch_size} is more than the batch of {self.batch_size}")
        return self
