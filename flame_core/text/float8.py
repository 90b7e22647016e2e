"""Matrix products of the LLM in float8: weights quantised once per output channel, activations per token.

    y = (q(x) q(W)^T) * s_x * s_W,   q(v) = v / s in e4m3,   s = max |v| / 448

The largest value of a row becomes e4m3's largest, 448, so a row's relative error is about 2^-4 per value and averages
out over the sum. On a Hopper GPU `torch._scaled_mm` computes the product in float8; elsewhere the same quantised values
are multiplied in float32, so results differ only by the order of sums.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.errors import ComputationError

_LARGEST = torch.finfo(torch.float8_e4m3fn).max
_MULTIPLE = 16  # of input and output channels, which the GPU's kernel needs


def quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows x [N, C] as float8 values [N, C] and their scales [N, 1] in float32."""
    scale = x.abs().amax(dim=-1, keepdim=True).float().clamp(min=1e-12) / _LARGEST
    return (x.float() / scale).to(torch.float8_e4m3fn), scale


class Float8Linear(nn.Module):
    """A linear map, x [..., C] to [..., D], computed from quantised weights and activations."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantised(linear.weight)  # [D, C], [D, 1]
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.T.contiguous())  # [1, D]
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows, scale = quantised(x.flatten(0, -2))
        if x.is_cuda:
            y = torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage]
                rows, self.weight.T, scale_a=scale, scale_b=self.scale, out_dtype=x.dtype, use_fast_accum=True
            )
        else:
            y = (F.linear(rows.float(), self.weight.float()) * scale * self.scale).to(x.dtype)
        if self.bias is not None:
            y = y + self.bias
        return y.unflatten(0, x.shape[:-1])


def quantise_layers(model: nn.Module) -> None:
    """Replace the linear maps in a decoder's layers with float8 ones.

    Raises:
        ComputationError: the model has no list of layers, or no linear map that fits.
    """
    layers = getattr(model, "layers", None)
    replaced = 0
    for module in list(layers.modules()) if isinstance(layers, nn.ModuleList) else []:
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and not (child.in_features % _MULTIPLE or child.out_features % _MULTIPLE):
                setattr(module, name, Float8Linear(child))
                replaced += 1
    if not replaced:
        raise ComputationError(
            f"{type(model).__name__}: no layer can be computed in float8; set text.dtype to bfloat16"
        )
