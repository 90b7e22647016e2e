"""A tower with masks over its width, heads and hidden units, and the smaller tower that computes the same.

The mask over the width multiplies the embedded tokens and what attention and MLP add to them; norms see only the
dimensions that are kept. So a dimension with mask 0 is 0 everywhere, and the others do not notice when it is taken
away. The input of the projector is not multiplied, neither while masked nor after pruning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.gated_layer import Gated
from flame_core.vision.block_sizes import narrow, resize, sizes_in, sizes_of
from flame_core.vision.folded_norms import FoldedNorm
from flame_core.vision.tower import ImageTower


@dataclass(frozen=True)
class Masks:
    """Numbers from 0 to 1: hidden [C]; heads and intermediate of each block, [H] and [M]."""

    hidden: Tensor
    heads: list[Tensor]
    intermediate: list[Tensor]

    def each(self) -> list[Tensor]:
        """All of them, in a fixed order."""
        return [self.hidden, *self.heads, *self.intermediate]

    @cached_property
    def kept(self) -> Tensor | None:
        """Numbers of the dimensions whose mask is above 0; None: of all. All norms share it, so a GPU waits once."""
        kept = self.hidden > 0
        return None if bool(kept.all()) else kept.nonzero().flatten()


class Masked:
    """Makes the forward pass of a plain ViT (`block_sizes.why_not_plain`) one with `masks`; None: as it was."""

    def __init__(self, backbone: Any) -> None:
        self.masks: Masks | None = None
        self._handles = [backbone.norm_pre.register_forward_pre_hook(self._before(lambda masks: masks.hidden))]
        self._norms = [backbone.norm_pre, backbone.norm]
        for number, block in enumerate(backbone.blocks):
            heads = partial(_of_heads, number=number, size=block.attn.head_dim)
            self._handles += [
                block.attn.proj.register_forward_pre_hook(self._before(heads)),
                block.mlp.fc2.register_forward_pre_hook(
                    self._before(lambda masks, number=number: masks.intermediate[number])
                ),
                block.ls1.register_forward_hook(self._after),
                block.ls2.register_forward_hook(self._after),
            ]
            self._norms += [block.norm1, block.norm2]
        self._norms = [norm for norm in self._norms if isinstance(norm, nn.LayerNorm)]
        for norm in self._norms:
            norm.forward = partial(self._kept_norm, norm)
            if isinstance(norm, FoldedNorm):
                norm.is_folded = _never  # the bias of a dimension that is not kept must not reach the next map

    def remove(self) -> None:
        """Leave the backbone as it was before."""
        for handle in self._handles:
            handle.remove()
        for norm in self._norms:
            del norm.forward
            if isinstance(norm, FoldedNorm):
                del norm.is_folded

    def _before(self, mask: Callable[[Masks], Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], Any]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
            return None if self.masks is None else (inputs[0] * mask(self.masks).to(inputs[0].dtype),)

        return hook

    def _after(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output if self.masks is None else output * self.masks.hidden.to(output.dtype)

    def _kept_norm(self, norm: nn.LayerNorm, input: Tensor) -> Tensor:
        """The norm of the dimensions that are kept; the others are 0."""
        numbers = None if self.masks is None else self.masks.kept
        if numbers is None:
            return type(norm).forward(norm, input)
        if not len(numbers):
            return torch.zeros_like(input)
        found = F.layer_norm(input[..., numbers], (len(numbers),), norm.weight[numbers], norm.bias[numbers], norm.eps)
        return torch.zeros_like(input, dtype=found.dtype).index_copy(-1, numbers, found)


def _never(x: Tensor) -> bool:
    return False


def _of_heads(masks: Masks, number: int, size: int) -> Tensor:
    return masks.heads[number].repeat_interleave(size)


@torch.no_grad()
def prune(tower: ImageTower, masks: Masks) -> None:
    """Multiply a tower's weights by masks and take away what is 0, with new parameters for everything in the tower.

    The result computes what the tower with these masks does.
    """
    backbone, hidden = tower.backbone, masks.hidden
    for name in ("cls_token", "reg_token", "pos_embed"):
        if (weight := getattr(backbone, name, None)) is not None:
            weight.mul_(hidden)
    _scale_rows(backbone.patch_embed.proj, hidden)
    for block, heads, units in zip(backbone.blocks, masks.heads, masks.intermediate, strict=True):
        block.attn.proj.weight.mul_(heads.repeat_interleave(block.attn.head_dim))
        block.mlp.fc2.weight.mul_(units)
        for scale, last in ((block.ls1, block.attn.proj), (block.ls2, block.mlp.fc2)):
            if hasattr(scale, "gamma"):
                scale.gamma.mul_(hidden)
            else:
                _scale_rows(last, hidden)
    kept = [mask.nonzero().flatten().cpu() for mask in masks.each()]
    depth = len(masks.heads)
    narrow(backbone, kept[0], kept[1 : 1 + depth], kept[1 + depth :])
    _narrow_projector(tower, kept[0])
    if tower.masked is not None:
        tower.masked.remove()
        tower.masked = None
    for module in tower.modules():  # DistributedDataParallel has its hooks on the old ones
        for name, weight in list(module.named_parameters(recurse=False)):
            module.register_parameter(name, nn.Parameter(weight.detach().clone(), weight.requires_grad))


def fit(tower: ImageTower, weights: Mapping[str, Tensor]) -> None:
    """Give a tower the sizes of its weights in a checkpoint, which may be from after it was pruned."""
    backbone = tower.backbone
    if backbone.uncut is None:
        return
    sizes = sizes_in(weights, backbone, "backbone.")
    if sizes != sizes_of(backbone):
        resize(backbone, **sizes.model_dump())
        _narrow_projector(tower, torch.arange(sizes.width))


def _narrow_projector(tower: ImageTower, kept: Tensor) -> None:
    for first in _readers(tower.projector.layers):
        first.weight = nn.Parameter(first.weight.detach()[:, kept.to(first.weight.device)], first.weight.requires_grad)
        first.in_features = len(kept)


def _readers(layers: nn.Module) -> list[nn.Linear]:
    """The layers of a head that read the backbone's width."""
    if isinstance(layers, Gated):
        return [layers.gate, layers.value]
    first = layers[0] if isinstance(layers, nn.Sequential) else layers
    assert isinstance(first, nn.Linear), "a head without layers has no width of its own"
    return [first]


def _scale_rows(layer: Any, mask: Tensor) -> None:
    layer.weight.mul_(mask.view(-1, *[1] * (layer.weight.ndim - 1)))
    if layer.bias is not None:
        layer.bias.mul_(mask)
