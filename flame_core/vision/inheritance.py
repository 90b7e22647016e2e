"""A tower that begins with the weights of a larger one: of each tensor, its first rows and columns.

TinyCLIP's manual inheritance (arXiv 2309.12314): block i of L takes the weights of block i * (L' // L) of the source's
L'; of the fused q, k, v the first heads are taken, of everything else the first rows and columns. Patches of another
size and positions of another grid are interpolated first. Towers of the same shape inherit equal weights.

Every weight of the tower is accounted for: `plan` names the source of each, or refuses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flame_core.errors import ParamsError
from flame_core.params import InheritParams, ModelParams
from flame_core.vision.block_sizes import sizes_of, why_not_plain
from flame_core.vision.tower import ImageTower, pixel_moments
from flame_core.vision.views import MEAN, STD

NEW = "new"  # the source of a weight that is drawn anew
_TOKENS = "cls_token|reg_token"
_VECTORS = r"patch_embed\.proj\.bias|norm(_pre)?\.(weight|bias)"
_OF_BLOCK = (
    r"norm[12]\.(weight|bias)|ls[12]\.gamma|attn\.(qkv|proj|gate|norm|q_norm|k_norm)\.(weight|bias)"
    r"|mlp\.(fc1|fc1_g|fc1_x|fc2|norm)\.(weight|bias)"
)
_KNOWN = re.compile(rf"backbone\.({_TOKENS}|pos_embed|patch_embed\.proj\.weight|{_VECTORS}|blocks\.\d+\.({_OF_BLOCK}))")
_POOLING = "backbone.attn_pool."  # a part of the head
_MAY_STAY = re.compile(
    rf"(backbone\.({_TOKENS}|norm\.(weight|bias)|attn_pool\.)|projector\.|facet_tokens\.|connector\.)"
)


@dataclass(frozen=True)
class Origin:
    """Where a weight of the tower comes from.

    Attributes:
        name: of the source's weight; `NEW` if it is drawn anew.
        whole: the shape of the source's weight, seen as an array whose front slice is taken.
        part: the shape of that slice.
        resampled: whether it is interpolated before.
    """

    name: str
    whole: tuple[int, ...] = ()
    part: tuple[int, ...] = ()
    resampled: bool = False

    def __str__(self) -> str:
        if self.name == NEW:
            return NEW
        cut = "all" if self.whole == self.part else f"first {_by(self.part)} of {_by(self.whole)}"
        return f"{self.name}: {'interpolated, ' if self.resampled else ''}{cut}"


def inherit(tower: ImageTower, source: ImageTower, params: InheritParams) -> dict[str, Origin]:
    """Give a tower the weights of another, and note their origins in `tower.origins`.

    Returns:
        The origin of each of the tower's weights, by name.

    Raises:
        ParamsError: a weight has no source, or one that is too small; names it.
    """
    origins = plan(tower, source, params)
    given = source.state_dict()
    weights = tower.state_dict()
    with torch.no_grad():
        for name, origin in origins.items():
            if origin.name != NEW:
                found = _resampled(given[origin.name], name, tower, source) if origin.resampled else given[origin.name]
                front = found.reshape(origin.whole)[tuple(slice(size) for size in origin.part)]
                weights[name].copy_(front.reshape(weights[name].shape))
    tower.origins = {name: str(origin) for name, origin in origins.items()}
    return origins


def begun_with(params: ModelParams, source: ImageTower) -> ModelParams:
    """The params of a tower with all that its source has left, in order to take more away from it."""
    if why_not_plain(source.backbone):
        return params
    return params.model_copy(update={"sizes": sizes_of(source.backbone)})


def plan(tower: ImageTower, source: ImageTower, params: InheritParams) -> dict[str, Origin]:
    """The origin of each of a tower's weights; both towers may be without weights (torch's meta device).

    Raises:
        ParamsError: the towers do not fit; says what to change.
    """
    own, given = _shapes(tower), _shapes(source)
    backbone, other = ({name: shape for name, shape in each.items() if not _is_head(name)} for each in (own, given))
    if other == backbone:
        origins = {name: Origin(name, shape, shape) for name, shape in backbone.items()}
        chosen = list(range(len(getattr(tower.backbone, "blocks", ()))))
        if params.blocks not in ("interval", "first", chosen):
            raise ParamsError(
                f"{params.blocks}, and both towers have the same {len(chosen)} blocks", key="train.inherit.blocks"
            )
    else:
        chosen = _of_plain_vits(tower, source, params)
        origins = {name: _origin(name, tower, source, chosen, given) for name in backbone}
    _require_alike(tower, source, chosen)
    origins |= _of_head(own, given, params.projector)
    _require_all_fit(origins)
    _require_all_used(origins, given, chosen)
    return origins


def block_numbers(own: int, given: int, blocks: str | Sequence[int]) -> list[int]:
    """The blocks of the source, from 0, that a tower of `own` blocks takes from `given`.

    Raises:
        ParamsError: there are too few, or `blocks` does not name them.
    """
    if own > given:
        raise ParamsError(
            f"the tower has {own} blocks and its source {given}: take at most {given} (depth)", key="train.inherit"
        )
    if blocks == "first":
        return list(range(own))
    if isinstance(blocks, str):
        return [index * (given // own) for index in range(own)]
    numbers = list(blocks)
    if len(numbers) != own or numbers != sorted(set(numbers)) or numbers[-1] >= given:
        raise ParamsError(
            f"{numbers}: name {own} different blocks, one for each of the tower, in rising order from 0 to {given - 1}",
            key="train.inherit.blocks",
        )
    return numbers


def _of_plain_vits(tower: ImageTower, source: ImageTower, params: InheritParams) -> list[int]:
    """The source's block for each block of the tower, if both towers are ViTs that can be cut."""
    from timm.layers.attention import Attention
    from timm.layers.mlp import Mlp, SwiGLU
    from timm.models.vision_transformer import VisionTransformer

    for role, backbone in (("the tower", tower.backbone), ("its source", source.backbone)):
        kinds = [type(backbone)]
        plain = type(backbone) is VisionTransformer
        if plain:
            kinds = [type(getattr(block, name, block)) for block in backbone.blocks for name in ("attn", "mlp")]
            plain = all(kind in (Attention, Mlp, SwiGLU) for kind in kinds)
        if not plain:
            names = ", ".join(sorted({kind.__name__ for kind in kinds}))
            raise ParamsError(
                f"{role} ({names}) cannot be cut, and the two towers differ: only timm's VisionTransformer "
                "with its plain attention and MLP can be inherited in parts",
                key="train.inherit",
            )
    return block_numbers(len(tower.backbone.blocks), len(source.backbone.blocks), params.blocks)


def _origin(name: str, tower: ImageTower, source: ImageTower, chosen: list[int], given: dict[str, Any]) -> Origin:
    """The origin of a weight of a plain ViT, whether or not it is large enough."""
    if not _KNOWN.fullmatch(name):
        raise ParamsError(f"it is not known how {name} is inherited", key="train.inherit")
    own = tuple(tower.state_dict()[name].shape)
    block = re.match(r"backbone\.blocks\.(\d+)\.(.*)", name)
    there = f"backbone.blocks.{chosen[int(block[1])]}.{block[2]}" if block else name
    if there not in given:
        raise ParamsError(
            f"{name} has no source: that model has no {there}; take the same architecture", key="train.inherit"
        )
    whole = given[there]
    if block and block[2].startswith("attn.qkv."):
        ours, theirs = (t.backbone.blocks[int(i)].attn for t, i in ((tower, block[1]), (source, chosen[int(block[1])])))
        seen, part = ((3, each.num_heads, each.head_dim) for each in (theirs, ours))
        return Origin(there, (*seen, *whole[1:]), (*part, *own[1:]))
    resampled = False
    if name == "backbone.patch_embed.proj.weight" and whole[1:] != own[1:]:
        resampled, whole = True, (*whole[:1], *own[1:])
    if name == "backbone.pos_embed" and _positions(tower.backbone) != _positions(source.backbone):
        resampled, whole = True, (*own[:2], *whole[2:])
    return Origin(there, tuple(whole), own, resampled)


def _positions(backbone: Any) -> tuple[Any, list[str]]:
    """What the rows of a ViT's position embedding are of: the grid of patches, and prefix tokens before it."""
    names = ["cls"] * backbone.has_class_token + [f"reg{index}" for index in range(backbone.num_reg_tokens)]
    return tuple(backbone.patch_embed.grid_size), [] if backbone.no_embed_class else names


def _of_head(own: dict[str, Any], given: dict[str, Any], projector: bool) -> dict[str, Origin]:
    """Origins of the weights that only z depends on."""
    names = [name for name in own if _is_head(name)]
    if not projector:
        return dict.fromkeys(names, Origin(NEW))
    origins = {}
    same = all(own[name] == given.get(name) for name in names if name.startswith("connector."))
    for name in names:
        if name.startswith("connector.") and not same:
            origins[name] = Origin(NEW)
        elif name in given:
            whole, part = (
                (2, each[name][0] // 2, *each[name][1:]) if _is_fused(name) else each[name] for each in (given, own)
            )
            origins[name] = Origin(name, tuple(whole), tuple(part))
            if name.startswith("projector.block.") and own[name] != given[name]:
                raise ParamsError(
                    "a lexical head is not inherited in parts: set inherit.projector to false", key="train.inherit"
                )
            if name.startswith("projector.") and own[name][:1] != given[name][:1]:
                raise ParamsError(
                    f"{name} has {own[name][0]} dimensions and its source {given[name][0]}, so the texts' "
                    "spaces differ: set inherit.projector to false",
                    key="train.inherit",
                )
        elif name.startswith("facet_tokens."):
            origins[name] = Origin(NEW)
        else:
            raise ParamsError(
                f"{name} has no source, because the heads differ: take the model.head of that model, or set "
                "inherit.projector to false",
                key="train.inherit",
            )
    return origins


def _is_head(name: str) -> bool:
    """Whether only z depends on a weight."""
    return not name.startswith("backbone.") or name.startswith(_POOLING)


def _is_fused(name: str) -> bool:
    """Whether a weight holds keys and values of attention pooling, one after the other."""
    return name.startswith(f"{_POOLING}kv.")


def _require_alike(tower: ImageTower, source: ImageTower, chosen: list[int]) -> None:
    """Refuse other pixels, another activation, norm or size of a head: equal weights would compute something else."""
    if _moments(tower) != _moments(source):
        ours, given = ("timm" if each.own_pixels else "clip" for each in (tower, source))
        raise ParamsError(
            f"the tower normalises pixels otherwise than its source (model.pixels {ours}, and there {given}): "
            "take the same",
            key="train.inherit",
        )
    theirs = dict(source.backbone.named_modules())
    for name, module in tower.backbone.named_modules():
        block = re.match(r"blocks\.(\d+)(\..*)", name)
        other = theirs.get(f"blocks.{chosen[int(block[1])]}{block[2]}" if block and chosen else name)
        if other is None:
            continue
        if name.endswith(".act") and type(module) is not type(other):
            one, two = type(module).__name__, type(other).__name__
            raise ParamsError(
                f"backbone.{name} is {one}, and in its source {two}: take the same act_layer", key="train.inherit"
            )
        if (ours := getattr(module, "eps", None)) != (given := getattr(other, "eps", None)) and None not in (
            ours,
            given,
        ):
            raise ParamsError(
                f"backbone.{name} has eps {ours:g}, and its source {given:g}: take the same", key="train.inherit"
            )
        if (ours := getattr(module, "head_dim", None)) != (given := getattr(other, "head_dim", None)):
            raise ParamsError(
                f"a head of the tower has {ours} dimensions and one of its source {given}: set num_heads of "
                f"backbone_options so that embed_dim / num_heads is {given}",
                key="train.inherit",
            )
    if getattr(tower.backbone, "no_embed_class", False) != getattr(source.backbone, "no_embed_class", False):
        raise ParamsError(
            "no_embed_class of backbone_options differs from the source's: take the same", key="train.inherit"
        )


def _moments(tower: ImageTower) -> list[list[float]]:
    """Mean and deviation of the pixels that a tower expects."""
    moments = pixel_moments(tower.backbone) if tower.own_pixels else (MEAN.flatten().tolist(), STD.flatten().tolist())
    return [[round(value, 4) for value in each] for each in moments]


def _require_all_fit(origins: dict[str, Origin]) -> None:
    large = {
        name: origin
        for name, origin in origins.items()
        if len(origin.whole) != len(origin.part) or any(p > w for p, w in zip(origin.part, origin.whole, strict=False))
    }
    if large:
        name, origin = next(iter(large.items()))
        others = f" and {len(large) - 1} more weights" if len(large) > 1 else ""
        raise ParamsError(
            f"the tower is larger than its source: {name} is {_by(origin.part)}, and there is "
            f"{_by(origin.whole)}{others}: take smaller backbone_options, or a larger source",
            key="train.inherit",
        )


def _require_all_used(origins: dict[str, Origin], given: dict[str, Any], chosen: list[int]) -> None:
    """Refuse a source whose architecture has weights in inherited places that the tower lacks."""
    used = {origin.name for origin in origins.values()}
    for name in given:
        block = re.match(r"backbone\.blocks\.(\d+)\.", name)
        left_out = block is not None and int(block[1]) not in chosen
        if name not in used and not left_out and not _MAY_STAY.match(name):
            raise ParamsError(
                f"the source has {name}, which the tower lacks: take the same architecture", key="train.inherit"
            )


def _resampled(weight: Tensor, name: str, tower: ImageTower, source: ImageTower) -> Tensor:
    """A source's position embedding on the tower's grid, or its patch embedding for the tower's patch size."""
    from timm.layers.patch_embed import resample_patch_embed
    from timm.layers.pos_embed import resample_abs_pos_embed

    ours, theirs = tower.backbone, source.backbone
    if name.endswith("weight"):
        return resample_patch_embed(weight, list(ours.patch_embed.patch_size))
    (grid, names), (given_grid, given) = _positions(ours), _positions(theirs)
    resized = resample_abs_pos_embed(weight[:, len(given) :], list(grid), list(given_grid), num_prefix_tokens=0)
    return torch.cat([weight[:, [given.index(name) for name in names]], resized], dim=1)


def _shapes(tower: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in tower.state_dict().items()}


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
