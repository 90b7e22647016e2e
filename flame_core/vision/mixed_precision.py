"""Two changes that make a ViT faster on a GPU: where autocast keeps float32, and where cuDNN is slow.

Under autocast, the position embeddings and the first norm give float32, and so does every later sum with the residual
stream: twice the bytes in all additions and norms. So the stream is cast back to autocast's type once, after the first
norm, as open_clip does. The patch embedding, a convolution whose patches do not overlap, is computed as a matrix
product. Neither changes what a CPU computes in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def keep_residual_type(backbone: Any) -> None:
    """Keep the residual stream of a timm ViT in autocast's type; other backbones stay as they are."""
    if isinstance(getattr(backbone, "norm_pre", None), nn.Module):
        backbone.norm_pre.register_forward_hook(_in_autocast_type)


def _in_autocast_type(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    device = output.device.type
    if output.is_meta or not torch.is_autocast_enabled(device):  # meta tensors have no autocast and are only counted
        return output
    return output.to(torch.get_autocast_dtype(device))


class PatchProduct(nn.Conv2d):
    """A convolution of adjacent patches, x [B, C, H, W] to [B, D, H/P, W/P], as a matrix product on a GPU.

    As in the convolution, pixels at the right and at the bottom that fill no patch are left out.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not input.is_cuda:
            return super().forward(input)
        p, q = self.kernel_size
        h, w = input.shape[2] // p, input.shape[3] // q
        patches = input[:, :, : h * p, : w * q].unflatten(3, (w, q)).unflatten(2, (h, p))
        patches = patches.permute(0, 2, 4, 1, 3, 5)  # [B, H/P, W/P, C, P, P]
        return F.linear(patches.flatten(3), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def multiply_patches(backbone: Any) -> None:
    """Compute a ViT's patch embedding with `PatchProduct` if its patches tile the picture."""
    conv = getattr(getattr(backbone, "patch_embed", None), "proj", None)
    if type(conv) is nn.Conv2d and conv.kernel_size == conv.stride and conv.padding == (0, 0) and conv.groups == 1:
        conv.__class__ = PatchProduct  # the same module and weights with another forward
