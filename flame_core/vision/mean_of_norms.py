"""The mean over tokens of LayerNorm(W x_p + c), with two large matrix products per step instead of three.

Only the mean over the N tokens of a picture is needed, so W x_p + c need not be known for each token, only its
variance:

    y_p = V x_p + d,  where V and d are W and c minus their means over the output channels, so y_p has mean 0
    s_p = 1 / sqrt(|y_p|^2 / D + eps),  |y_p|^2 = |V x_p|^2 + 2 (V^T d) . x_p + |d|^2
    mean LN = g * (V mean(s_p x_p) + d mean(s_p)) + b

V mean(...) is one product per picture. |V x_p|^2 = x_p . M x_p with M = V^T V costs one product per token, and its
gradient, 2 M x_p, none, because M x_p is kept. The gradient of V follows from that of M, one product over all tokens.
The results differ from the usual way only by rounding. M itself costs D^3, so it pays only for many more tokens than D.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SquaredLengths(torch.autograd.Function):
    """|V x_p|^2 in float32: tokens x [P, C], V [D, C] to [P]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor) -> Tensor:
        products = x @ (v.T @ v)  # M x_p, [P, C]
        ctx.save_for_backward(x, v, products)
        return (x.to(_sum_type(x)) * products).sum(dim=-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, v, products = ctx.saved_tensors
        twice = 2 * grads[0][:, None]
        of_m = (twice * x).to(x.dtype).T @ x  # twice the gradient of M, [C, C]
        return (twice * products).to(x.dtype), v @ of_m


def mean_of_norms(x: Tensor, linear: nn.Linear, norm: nn.LayerNorm) -> Tensor:
    """The mean over N of `norm(linear(x))`: x [B, N, C] to [B, D], in float32 or more."""
    kind, bias = x.dtype, linear.bias
    v = linear.weight - linear.weight.mean(dim=0)
    d = bias - bias.mean()
    lengths = SquaredLengths.apply(x.flatten(0, 1), v.to(kind)).unflatten(0, x.shape[:2])  # [B, N]
    mixed = (v * d[:, None]).sum(dim=0)  # V^T d; not a matrix product, which autocast would round
    wide = x.to(_sum_type(x))
    variance = (lengths + 2 * (wide * mixed).sum(dim=-1) + (d * d).sum()) / len(v)
    scale = torch.rsqrt(variance.clamp(min=0) + norm.eps)[..., None]  # [B, N, 1]
    mean = F.linear((scale * wide).mean(dim=1), v).to(wide.dtype) + d * scale.mean(dim=1)
    return mean * norm.weight + norm.bias


def _sum_type(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
