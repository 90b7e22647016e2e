"""`prompts`: soft prompts that make the frozen LLM write a caption, learned from text only (P-Former); optional."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from flame_core.params.section import CaptionKind, Fraction, Positive, Reading, Section, refuse


class SentenceEncoderParams(Section):
    """A small transformer over the LLM's tokens, trained together with the prompts."""

    width: Positive = Field(default=256, description="of its layers, and D of its sentence vector")
    layers: Positive = Field(default=4, description="of the transformer")
    heads: Positive = Field(default=4, description="of the attention; they divide the width")
    masked: float = Field(default=0.25, ge=0, lt=1, description="share of a caption's tokens that it does not see")
    learning_rate: float = Field(default=1e-4, gt=0, description="of the encoder; cosine to 0")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> SentenceEncoderParams:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be divided among {self.heads} heads")
        return self


class PromptWeights(Section):
    """What each term of the loss counts."""

    lm: float = Field(default=1.0, gt=0, description="the LLM writes the caption")
    vocab: float = Field(default=1.0, ge=0, description="prompts lie near the LLM's input embeddings")
    contrast: float = Field(default=0.1, ge=0, description="captions lie apart")


class ContrastParams(Section):
    """L_c, between passes over the same captions."""

    passes: Literal[1, 2] = Field(default=2, description="2: with other dropout; 1: only spreads captions apart")
    temperature: float = Field(default=0.07, gt=0, description="at the start; it is learned")
    smoothing: float = Field(default=0.1, ge=0, lt=1, description="of the labels")
    dims: Positive = Field(default=256, description="of the space in which captions are compared")


class PromptGates(Section):
    """Thresholds of the checks of `flame prompts`."""

    min_overlap: Fraction = Field(
        default=0.5, description="of the words of held-out captions and of what the LLM writes from their prompts, F1"
    )


class PromptsParams(Section):
    """An autoencoder of captions whose decoder is the frozen LLM."""

    count: Positive = Field(default=16, description="n, prompts per caption")
    kinds: list[CaptionKind] = Field(default=["raw"], min_length=1, description="kinds of captions that are learned")
    reading: Reading = Field(
        default="facets", description="which stored vector of a caption is read: its first facet, or its sentence"
    )
    encoder: SentenceEncoderParams | None = Field(
        default=None, description="trained instead of reading stored vectors; null: stored vectors"
    )
    template: str = Field(
        default="{prompts}{caption}",
        description="what the LLM reads; text before {prompts} and {caption} may be a turn of its chat template",
    )
    max_tokens: Positive = Field(default=32, description="of a caption; longer ones are cut")
    width: Positive = Field(default=512, description="of the prompt head")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="in the prompt head and the encoder")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="of the LLM")
    cpu_threads: Positive = Field(default=2, description="of torch on a CPU; sums depend on it")
    weights: PromptWeights = PromptWeights()
    contrast: ContrastParams = ContrastParams()
    steps: Positive = Field(default=2000, description="of the training")
    batch_size: int = Field(default=64, ge=2, description="captions of a step")
    learning_rate: float = Field(default=1e-3, gt=0, description="of the prompt head; cosine to 0")
    warmup_steps: int = Field(default=50, ge=0, description="in which the learning rate rises from 0")
    weight_decay: float = Field(default=0.05, ge=0, description="of AdamW; weights of one dimension have none")
    held_out: float = Field(default=0.1, gt=0, lt=1, description="share of the captions that are not learned")
    written: Positive = Field(default=100, description="held-out captions that the LLM writes at the end, at most")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of first weights and the order of captions")
    gates: PromptGates = PromptGates()

    @field_validator("template")
    @classmethod
    def _holds_both(cls, template: str) -> str:
        once = template.count("{prompts}") == template.count("{caption}") == 1
        if not once or not template.endswith("{caption}"):
            raise ValueError("template must hold {prompts} once, and end with {caption}")
        return template

    @model_validator(mode="after")
    def _passes_differ(self, info: ValidationInfo) -> PromptsParams:
        masked = self.encoder.masked if self.encoder else 0.0
        if self.weights.contrast and self.contrast.passes == 2 and not (self.dropout or masked):
            said = (
                "two passes over a caption differ by dropout, or by what an encoder masks: take dropout above 0, or 1"
            )
            refuse([(("contrast", "passes"), said)], info)
        return self
