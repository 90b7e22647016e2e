"""The image tower as custom code for `transformers`. An exported folder holds a copy of this file.

It imports torch, timm and transformers, nothing of the project that trained the tower. Submodules have the names of
the trained weights, so `model.safetensors` is loaded as it is.

    from transformers import AutoImageProcessor, AutoModel

    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    model(**processor(picture, return_tensors="pt")).image_embeds    # [1, D], unit length
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils.generic import ModelOutput


class FlameVisionConfig(PretrainedConfig):
    """A timm backbone (`architecture`, `model_args`) and its head into a space of `projection_dim` dimensions.

    `head` is `patches` (each patch is projected, then their mean is taken) or `pooled` (the mean patch is projected).
    The last `facet_blocks` blocks hold `num_facets` facet tokens; null: the tower has none. `sizes` are those of a
    tower that was pruned, which `model_args` cannot say.
    """

    model_type = "flame_vision"

    def __init__(
        self,
        architecture: str = "vit_base_patch16_clip_224",
        model_args: dict[str, Any] | None = None,
        image_size: int = 224,
        projection_dim: int = 512,
        head: str = "patches",
        num_facets: int = 0,
        facet_blocks: int | None = None,
        sizes: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        self.architecture, self.image_size = architecture, image_size
        self.model_args = model_args or {"num_classes": 0, "global_pool": "avg", "final_norm": False}
        self.projection_dim, self.head = projection_dim, head
        self.num_facets, self.facet_blocks = num_facets, facet_blocks
        self.sizes = sizes
        super().__init__(**others)


@dataclass
class FlameVisionOutput(ModelOutput):
    """`image_embeds` [B, D]; `facet_embeds` [B, F, D], if there are facet tokens; `last_hidden_state` [B, N, C].

    The vectors have unit length; the last are the patch tokens of the backbone.
    """

    image_embeds: Tensor | None = None
    facet_embeds: Tensor | None = None
    last_hidden_state: Tensor | None = None


def resize(backbone: Any, sizes: Any) -> None:
    """Give a timm ViT this width, and each block its own number of heads and hidden units."""
    width = torch.arange(sizes["width"])

    def keep(module: Any, name: str, *numbers: Any) -> None:
        weight = getattr(module, name, None)
        if weight is not None:
            for axis, number in enumerate(numbers):
                weight = weight if number is None else weight.index_select(axis, number)
            setattr(module, name, nn.Parameter(weight.detach().clone()))

    def both(module: Any, rows: Any, columns: Any = None) -> None:
        keep(module, "weight", rows, columns)
        keep(module, "bias", rows)
        if hasattr(module, "normalized_shape"):
            module.normalized_shape = (len(rows),)

    both(backbone.patch_embed.proj, width)
    both(backbone.norm_pre, width)
    both(backbone.norm, width)
    for name in ("cls_token", "reg_token", "pos_embed"):
        keep(backbone, name, None, None, width)
    for block, heads, units in zip(backbone.blocks, sizes["heads"], sizes["intermediate"]):  # noqa: B905
        attn, mlp, inner, hidden = block.attn, block.mlp, heads * block.attn.head_dim, torch.arange(units)
        parts = [torch.arange(inner) + part * attn.attn_dim for part in range(3)]
        both(attn.qkv, torch.cat(parts), width)
        both(attn.proj, width, torch.arange(inner))
        attn.num_heads, attn.attn_dim = heads, inner
        both(mlp.fc1, hidden, width)
        both(mlp.fc2, width, hidden)
        for norm in (block.norm1, block.norm2):
            both(norm, width)
        for scale in (block.ls1, block.ls2):
            keep(scale, "gamma", width)
    backbone.num_features = backbone.embed_dim = backbone.head_hidden_size = len(width)


class Projector(nn.Module):
    """Tokens [B, N, C] to [B, N, D], not normalised."""

    def __init__(self, width: int, config: FlameVisionConfig) -> None:
        super().__init__()
        size = config.projection_dim
        norm = [] if config.head == "pooled" else [nn.LayerNorm(size)]
        self.layers = nn.Sequential(nn.Linear(width, size), nn.GELU(), nn.Linear(size, size), *norm)


class FacetTokens(nn.Module):
    """One learned token per facet."""

    def __init__(self, facets: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(facets, width))


class FlameVisionModel(PreTrainedModel):
    """Normalised pictures [B, 3, H, W] to unit vectors."""

    config_class = FlameVisionConfig
    main_input_name = "pixel_values"
    _keys_to_ignore_on_load_unexpected = [r"classifier\.weight"]  # noqa: RUF012

    def __init__(self, config: FlameVisionConfig) -> None:
        super().__init__(config)
        self.backbone: Any = timm.create_model(config.architecture, **config.model_args)
        if config.sizes is not None:
            resize(self.backbone, config.sizes)
        width: int = self.backbone.num_features
        self.projector = Projector(width, config)
        self.facet_tokens = None if config.facet_blocks is None else FacetTokens(config.num_facets, width)
        self.post_init()

    def forward(self, pixel_values: Tensor, return_dict: bool | None = None, **ignored: Any) -> FlameVisionOutput:
        patches, facets = self._tokens(pixel_values)
        project = self.projector.layers
        z = project(patches.mean(dim=1)) if self.config.head == "pooled" else project(patches).mean(dim=1)
        return FlameVisionOutput(
            image_embeds=F.normalize(z.float(), dim=-1),
            facet_embeds=None if facets is None else F.normalize(project(facets).float(), dim=-1),
            last_hidden_state=patches,
        )

    def _tokens(self, pixel_values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens of the last block: of the patches [B, N, C], and of the facets [B, F, C], if there are any."""
        backbone = self.backbone
        prefix = getattr(backbone, "num_prefix_tokens", 0)
        if self.facet_tokens is None:
            found = backbone.forward_features(pixel_values)
            if found.ndim == 4:  # a feature map, whose places are the tokens
                last = str(getattr(backbone, "output_fmt", "")).endswith("NHWC")
                return (found.flatten(1, 2) if last else found.flatten(2).transpose(1, 2)), None
            return found[:, prefix:], None
        x = backbone.norm_pre(backbone.patch_drop(backbone._pos_embed(backbone.patch_embed(pixel_values))))
        first = len(backbone.blocks) - self.config.facet_blocks
        for block in backbone.blocks[:first]:
            x = block(x)
        own = x.shape[1]
        x = torch.cat([x, self.facet_tokens.tokens.to(x.dtype).expand(len(x), -1, -1)], dim=1)
        sees = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)  # a facet sees the picture and itself,
        sees[:, :own] = True  # the picture sees no facet
        for block in backbone.blocks[first:]:
            x = block(x, attn_mask=sees)
        x = backbone.norm(x)
        return x[:, prefix:own], x[:, own:]


class FlameForImageClassification(FlameVisionModel):
    """Zero-shot classes whose texts are the weights: `logits` [B, C] are cosines of the picture with each class."""

    _keys_to_ignore_on_load_unexpected = []  # noqa: RUF012

    def __init__(self, config: FlameVisionConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config.projection_dim, len(config.id2label or {}), bias=False)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, pixel_values: Tensor, return_dict: bool | None = None, **ignored: Any
    ) -> ImageClassifierOutput:
        z = super().forward(pixel_values).image_embeds
        return ImageClassifierOutput(logits=self.classifier(z))
