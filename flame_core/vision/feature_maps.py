"""Backbones that give a feature map instead of tokens, such as EfficientNet and ConvNeXt: each place is a token.

Their batch norms keep the statistics that they came with, in training too: those of a batch would differ between the
pieces of a batch and between ranks. So such a backbone needs weights to begin with (`model.init`).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def tokens_of(backbone: Any, pictures: Tensor) -> Tensor:
    """Tokens [B, T, C] of a timm backbone's last layer, of pictures [B, 3, H, W]."""
    return as_tokens(backbone, backbone.forward_features(pictures))


def as_tokens(backbone: Any, found: Any) -> Any:
    """What a backbone returned as tokens [B, T, C], if it is a feature map; else as it is."""
    if not isinstance(found, Tensor) or found.ndim != 4:
        return found
    return found.flatten(1, 2) if gives_channels_last(backbone) else found.flatten(2).transpose(1, 2)


def gives_channels_last(backbone: Any) -> bool:
    """Whether a backbone's feature map is [B, H, W, C] and not [B, C, H, W]."""
    return str(getattr(backbone, "output_fmt", "NCHW")).endswith("NHWC")


def batch_norms(backbone: nn.Module) -> list[nn.Module]:
    """The batch norms of a backbone."""
    return [module for module in backbone.modules() if isinstance(module, _BatchNorm)]


def prepare_map(backbone: Any) -> None:
    """Give a backbone with a feature map what the tower asks of every backbone, and keep its statistics."""
    backbone.num_prefix_tokens, backbone.gives_map = 0, True
    for module in batch_norms(backbone):
        module.eval()
    head = getattr(backbone, "head", None)  # the norm of ConvNeXt's, which stands behind the mean and is not used
    if isinstance(head, nn.Module):
        head.requires_grad_(False)
