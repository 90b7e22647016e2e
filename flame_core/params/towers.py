"""The towers of a recipe: the image tower with its head and connector, a trained text tower, adapters on the LLM."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from flame_core.params.changed_values import changed_values
from flame_core.params.initial_weights import InitParams, LastBlocks
from flame_core.params.section import Positive, Section


class SizesParams(Section):
    """Sizes of a ViT that timm's arguments cannot say, such as those of a pruned tower; heads keep their size."""

    width: Positive = Field(description="of the tower")
    heads: list[Positive] = Field(description="number of heads of each block")
    intermediate: list[Positive] = Field(description="number of hidden units of each block's MLP")


class ConnectorParams(Section):
    """Learned queries that look at a tower's patches and become prompts for the LLM."""

    prompts: Positive = Field(default=16, description="n, prompts per picture; that of the head of `flame prompts`")
    width: Positive = Field(default=256, description="of a query")
    layers: Positive = Field(default=2, le=12, description="times that queries look at the patches")
    heads: Positive = Field(default=4, description="of the attention; divides the width")

    @model_validator(mode="after")
    def _heads_divide(self) -> ConnectorParams:
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} does not divide the width {self.width}")
        return self


class ModelParams(Section):
    """A timm backbone and the projector into the LLM's space."""

    backbone: str = Field(default="vit_base_patch16_clip_224", description="name of a timm model")
    backbone_options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of timm")
    image_size: Positive = Field(default=224, description="side of the square that the tower sees, in pixels")
    sizes: SizesParams | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # as `reading` below
        description="sizes of a plain ViT, at most those of the backbone; null: the backbone's",
    )
    facet_blocks: Positive | Literal["all"] | None = Field(
        default=None, description="last blocks of the ViT that hold a token for each facet; null: no facet tokens"
    )
    head: Literal["patches", "pooled", "cls", "attention", "lexical", "gated", "none", "linear"] = Field(
        default="patches",
        exclude_if=lambda value: value == "patches",  # as `reading` below
        description="patches: FLAME's, projects each patch into the LLM's space, then takes the mean; pooled: LIFT's, "
        "projects the mean patch after the backbone's norm; cls: CLIP's, projects the CLS token after it; "
        "attention: SigLIP's, projects what a learned query finds in the patches after it; "
        "lexical: LexVLA's, weights of words, with the objective of that name; gated: SAIL's layer on the mean patch; "
        "none: the mean patch itself, with a text_projection; linear: one matrix on the CLS token after the norm, that "
        "of the weights of model.init, such as a CLIP's",
    )
    head_hidden: Positive | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # as `reading` below
        description="hidden units of the head; null: as many as the space has dimensions",
    )
    connector: ConnectorParams | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # as `reading` below
        description="prompts of the picture for the LLM, with the term of that name; null: none",
    )
    checkpoint_activations: bool = Field(default=False, description="recompute blocks in backward to save memory")
    init: InitParams | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # as `reading` below
        description="weights of another project that the backbone begins with; null: random",
    )
    train: Literal["all", "none"] | LastBlocks = Field(
        default="all",
        exclude_if=lambda value: value == "all",  # as `reading` below
        description="what of the backbone learns: all, none, or {last_blocks: n}; the head always learns",
    )
    pixels: Literal["clip", "timm"] = Field(
        default="clip",
        exclude_if=lambda value: value == "clip",  # as `reading` below
        description="mean and deviation by which pixels are normalised: CLIP's, or timm's for the backbone",
    )

    @property
    def reads_class_token(self) -> bool:
        """Whether the head reads the CLS token; other heads read the patches."""
        return self.head in ("cls", "linear")

    @property
    def identity(self) -> dict[str, Any]:
        """The values that decide what a tower computes, without where its first weights came from."""
        return {name: value for name, value in changed_values(self).items() if name != "init"}


class TextTowerParams(Section):
    """A text transformer trained from scratch with the LLM's tokenizer, instead of the frozen LLM's embeddings."""

    width: Positive = Field(default=512, description="of its layers")
    depth: Positive = Field(default=12, description="how many layers")
    heads: Positive = Field(default=8, description="of the attention")
    max_tokens: int = Field(default=77, ge=2, description="longer captions are cut; one is the end token")


class LoraParams(Section):
    """LoRA adapters on the LLM's linear layers: it reads the captions at every step, and only the adapters change."""

    rank: Positive = Field(default=8, description="of an adapter's two matrices")
    alpha: float = Field(default=16.0, gt=0, description="what an adapter adds is multiplied by alpha / rank")
    targets: list[str] = Field(
        default=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        min_length=1,
        description="names of the layers that get adapters",
    )
    checkpoint_activations: bool = Field(
        default=False, description="recompute the LLM's layers in backward to save memory"
    )
