"""The image tower: a timm backbone without its classifier, and a head into the texts' space on its patch tokens.

A backbone with a feature map has a token per place (`feature_maps`). The backbone's CLS token, if it has one, stays in
the sequence but is not part of the mean; facet tokens are optional (`facet_tokens`). A model folder
(`data/models/<recipe>/`) holds `model.safetensors`, with only the trained weights, and `config.json`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from flame_core.errors import ParamsError
from flame_core.params import ModelParams
from flame_core.vision.block_sizes import require_sizes, resize, sizes_of, why_not_plain
from flame_core.vision.connector import Connector
from flame_core.vision.facet_tokens import FacetTokens
from flame_core.vision.feature_maps import as_tokens, prepare_map, tokens_of
from flame_core.vision.folded_norms import fold_norms
from flame_core.vision.lexical_head import LexicalHead
from flame_core.vision.mixed_precision import keep_residual_type, multiply_patches
from flame_core.vision.projector import GatedProjector, LinearProjector, NoProjector, PatchProjector, PooledProjector
from flame_core.vision.token_subset import subset_tokens
from flame_core.vision.views import MEAN, STD

if TYPE_CHECKING:
    from flame_core.vision.masked_tower import Masked


FEATURES = frozenset({"z", "pooled", "cls", "patches", "prompts"})


class ImageTower(nn.Module):
    """Normalised pictures [B, 3, H, W] to unit vectors z [B, 1 + F, D] in the LLM's space, and other features.

    z[:, 0] is the picture as a whole; the F others are its facets, if `model.facet_blocks` asks for them. `origins`
    says where each weight comes from, if they were those of another tower (`inheritance`).
    """

    origins: dict[str, str] | None = None
    masked: Masked | None = None  # while masks are learned
    own_pixels = False  # whether the backbone wants pixels that are not normalised as CLIP's
    scale: Tensor
    shift: Tensor

    def __init__(
        self, params: ModelParams, hidden: int, facets: int, words: int = 0, prompt_dims: int | None = None
    ) -> None:
        """Take D, F, and for the head `lexical` the number of words V, which then is z's dimension.

        `prompt_dims` is H of the connector, if the model has one; by default it is D.
        """
        super().__init__()
        self.backbone: Any = create_backbone(params)
        keep_residual_type(self.backbone)
        multiply_patches(self.backbone)
        fold_norms(self.backbone)
        if params.checkpoint_activations:
            self.backbone.set_grad_checkpointing(True)
        if params.reads_class_token and getattr(self.backbone, "cls_token", None) is None:
            raise ParamsError(
                f"{params.head}, and the backbone {type(self.backbone).__name__} has no class token; take another, or "
                "head pooled",
                key="train.model.head",
            )
        self._head, self._reads_class_token = params.head, params.reads_class_token
        self.projector = _head(params, self.backbone.num_features, hidden, words)
        blocks = params.facet_blocks
        self.facet_tokens = FacetTokens(self.backbone, facets, blocks) if blocks is not None else None
        self.own_pixels = params.pixels == "timm"
        if self.own_pixels:  # from CLIP's, by which all pictures are normalised
            mean, std = (torch.tensor(each, device="cpu")[:, None, None] for each in pixel_moments(self.backbone))
            self.register_buffer("scale", STD / std, persistent=False)
            self.register_buffer("shift", (MEAN - mean) / std, persistent=False)
        self.connector = None
        if params.connector is not None:
            self.connector = Connector(self.backbone.num_features, params.connector, prompt_dims or hidden)

    @property
    def gives_map(self) -> bool:
        """Whether the backbone gives a feature map, whose places are the tokens."""
        return bool(getattr(self.backbone, "gives_map", False))

    def patches(self, pictures: Tensor) -> Tensor:
        """Patch tokens of the last block, [B, N, C], without prefix tokens; facet tokens do not change them."""
        return self._tokens(pictures)[:, self.backbone.num_prefix_tokens :]

    def _tokens(self, pictures: Tensor, keep: Tensor | None = None) -> Tensor:
        """Tokens [B, T, C] of the last block."""
        pictures = self.as_backbone_sees(pictures)
        return tokens_of(self.backbone, pictures) if keep is None else subset_tokens(self.backbone, pictures, keep)

    def as_backbone_sees(self, pictures: Tensor) -> Tensor:
        """Pictures [B, 3, H, W], normalised as the backbone was trained."""
        return pictures * self.scale + self.shift if self.own_pixels else pictures

    def forward(
        self, pictures: Tensor, reads: Collection[str] = ("z",), keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The features named in `reads`, of whole pictures or only of their patches `keep` [B, M].

        `pictures` may be what the backbone gave for them, [B, C]: the mean patch, or the CLS token if the head reads
        it. Then z and that feature are known.

        z [B, 1 + F, D]; from the backbone's last block: pooled [B, C], the mean patch token; cls [B, C]; patches
        [B, N, C]; and from the connector prompts [B, n, H].
        """
        prefix = self.backbone.num_prefix_tokens
        if pictures.ndim == 2:
            tokens = patches = pictures[:, None]
            facets = None
        elif self.facet_tokens is None:
            tokens = self._tokens(pictures, keep)  # [B, T, C]
            patches, facets = tokens[:, prefix:], None
        else:
            tokens = self.facet_tokens(self.backbone, self.as_backbone_sees(pictures), keep)  # [B, T + F, C]
            own = tokens.shape[1] - len(self.facet_tokens.tokens)
            patches, facets = tokens[:, prefix:own], tokens[:, own:]
        features = {}
        if "z" in reads:
            features["z"] = self.projector(self._pooled(tokens, patches), facets)
        if "pooled" in reads:
            features["pooled"] = patches.mean(dim=1)
        if "cls" in reads:
            features["cls"] = tokens[:, 0]
        if "patches" in reads:
            features["patches"] = patches
        if "prompts" in reads and self.connector is not None:
            features["prompts"] = self.connector(patches)
        return features

    def _pooled(self, tokens: Tensor, patches: Tensor) -> Tensor:
        """What the head gets, [B, N, C] or [B, 1, C]: the patches, the CLS token, or patches pooled by attention."""
        if self._head == "attention":
            return self.backbone.attn_pool(patches)[:, None]
        return tokens[:, :1] if self._reads_class_token else patches

    def head_parts(self) -> nn.ModuleList:
        """The modules on which only z depends."""
        pooling = self.backbone.attn_pool if self._head == "attention" else None
        return nn.ModuleList(part for part in (self.projector, pooling, self.facet_tokens) if part is not None)

    def z(self, pictures: Tensor) -> Tensor:
        """Unit vectors z [B, 1 + F, D]."""
        return self(pictures)["z"]

    def patch_vectors(self, pictures: Tensor) -> Tensor:
        """Each patch in the space of z, [B, N, D]; FLAME's are not normalised, and z_0 is their normalised mean."""
        if isinstance(self.projector, LexicalHead):
            return self.projector.of_patches(self.patches(pictures))
        return self.projector.layers(self.patches(pictures))

    def word_weights(self, pictures: Tensor, words: Tensor) -> Tensor:
        """What each patch gives to the words [W] of its picture, [B, N, W], by the head `lexical`."""
        head: Any = self.projector
        return head.by_patch(self.patches(pictures), words)


def _head(params: ModelParams, width: int, hidden: int, words: int) -> PatchProjector | PooledProjector | LexicalHead:
    if params.head == "lexical":
        return LexicalHead(width, hidden, words)
    if params.head == "patches":
        return PatchProjector(width, hidden, params.checkpoint_activations)
    kinds = {"gated": GatedProjector, "none": NoProjector, "linear": LinearProjector}
    return kinds.get(params.head, PooledProjector)(width, hidden, params.head_hidden)


def backbone_arguments(params: ModelParams) -> dict[str, Any]:
    """Keyword arguments of `timm.create_model` for the backbone."""
    norm = {"final_norm": False} if params.head == "patches" else {"final_norm": True, "fc_norm": False}
    pooling = "map" if params.head == "attention" else "avg"
    if twice := sorted(params.backbone_options.keys() & {"num_classes", "global_pool", *norm}):
        raise TypeError(f"the tower itself decides {', '.join(twice)}")
    if not _takes_norms(params.backbone):
        norm = {}
    return {"num_classes": 0, "global_pool": pooling, **norm, **_size(params), **params.backbone_options}


def _size(params: ModelParams) -> dict[str, int]:
    """The size of pictures for a backbone with given weights that is made for one size, if timm's is another."""
    if params.init is None:
        return {}
    import timm

    known = timm.get_pretrained_cfg(params.backbone)
    other = known is not None and known.fixed_input_size and known.input_size[-1] != params.image_size
    return {"img_size": params.image_size} if other else {}


@cache
def _takes_norms(backbone: str) -> bool:
    """Whether timm's model has a final norm that may be left out: those with a feature map have not."""
    import timm

    try:
        with torch.device("meta"):
            timm.create_model(backbone, num_classes=0, final_norm=False)
    except TypeError as error:
        return "final_norm" not in str(error)
    except Exception:  # of another kind, which `create_backbone` reports with the options in params
        return True
    return True


def pixel_moments(backbone: Any) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of the pixels that a timm backbone was trained with."""
    return backbone.default_cfg["mean"], backbone.default_cfg["std"]


def create_backbone(params: ModelParams) -> nn.Module:
    """A timm backbone that returns tokens [B, T, C], randomly initialised; for FLAME's head, without its final norm.

    Raises:
        ParamsError: timm does not know the name or an option, or the model does not return tokens.
    """
    import timm

    try:
        backbone: Any = timm.create_model(params.backbone, **backbone_arguments(params))
        backbone.eval()
        with torch.inference_mode():
            found = backbone.forward_features(torch.zeros(1, 3, params.image_size, params.image_size))
            is_map = isinstance(found, Tensor) and found.ndim == 4
            tokens = as_tokens(backbone, found)
    except Exception as error:  # timm raises many kinds; all mean that these params do not make a model
        foreign = "unexpected keyword argument" in str(error)
        advice = ". An option that is for another backbone goes if it is null: {img_size: null}" if foreign else ""
        raise ParamsError(
            f"timm cannot make {params.backbone!r} with {params.backbone_options} "
            f"for pictures of {params.image_size} px: {error}{advice}",
            key="train.model",
        ) from error
    if not (isinstance(tokens, Tensor) and tokens.ndim == 3 and tokens.shape[-1] == backbone.num_features):
        raise ParamsError(
            f"{params.backbone!r} returns neither tokens [B, T, C] nor a feature map; take a ViT",
            key="train.model.backbone",
        )
    backbone.uncut = None if why_not_plain(backbone) else sizes_of(backbone)
    if params.sizes is not None:
        require_sizes(backbone, params.sizes)
        resize(backbone, **params.sizes.model_dump())
    backbone.train()
    if is_map:
        prepare_map(backbone)
    return backbone


def tower_params(config: Mapping[str, Any]) -> ModelParams:
    """The params of a model's tower, from its config, which has the sizes of a tower that was pruned while trained."""
    sizes = {"sizes": config["sizes"]} if "sizes" in config else {}
    return ModelParams.model_validate({**config["recipe"]["model"], **sizes})


def require_features(backbone: Any, reads: Collection[str], who: str) -> None:
    """Refuse a reader of features that the backbone does not have.

    Raises:
        ParamsError: begins with `who` and names the feature.
    """
    if unknown := sorted(set(reads) - FEATURES):
        raise ParamsError(
            f"{who} reads {', '.join(unknown)}, which no tower has; known features: {', '.join(sorted(FEATURES))}"
        )
    if "cls" in reads and getattr(backbone, "cls_token", None) is None:
        raise ParamsError(
            f"{who} reads the CLS token, but the backbone {type(backbone).__name__} of train.model has none: take one "
            "with a class token, such as vit_base_patch16_clip_224"
        )
