"""Matrix products of the LLM in float8: weights quantised once per output channel, activations per token.

    y = (q(x) q(W)^T) * s_x * s_W,   q(v) = v / s in e4m3,   s = max |v| / 448

The largest value of a row becomes e4m3's largest, 448, so a row's relative error is about 2^-4 per value and averages
out over the sum. Two things make the rest smaller, both from x^T x of what a map gets in `CALIBRATION`:

- Weights are rounded a few input channels at a time, and each error is made up for by the channels that come after
  (GPTQ, Frantar et al., arXiv 2210.17323, without its steps within a block).
- The input channels that contribute most are there twice more: x's and W's rounding errors in them, as e4m3, times the
  other's rounded values. So what they contribute is as in bfloat16, in the same product with two more channels each.

On a Hopper GPU `torch._scaled_mm` computes the product in float8; elsewhere the same quantised values are multiplied in
float32, so results differ only by the order of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.errors import ComputationError

VERSION = 2  # of the rounding; stored vectors depend on it
_LARGEST = torch.finfo(torch.float8_e4m3fn).max
_MULTIPLE = 16  # of input and output channels, which the GPU's kernel needs
_EXACT = 32  # input channels at most that are there twice more
_BLOCK = 16  # input channels that are rounded together
_DAMP = 0.01  # of the mean of x^T x's diagonal, which is added to it
_MOMENTS = 2 << 30  # bytes of x^T x that are held at once

_Place = tuple[nn.Module, str]  # a module, and the name of a linear map in it


def quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows x [N, C] as float8 values [N, C] and their scales [N, 1] in float32."""
    scale = scale_of(x)
    return (x.float() / scale).to(torch.float8_e4m3fn), scale


def scale_of(x: Tensor) -> Tensor:
    """The scales [N, 1] of rows x [N, C]."""
    return x.abs().amax(dim=-1, keepdim=True).float().clamp(min=1e-12) / _LARGEST


class Float8Linear(nn.Module):
    """A linear map, x [..., C] to [..., D], computed from quantised weights and activations.

    `moment` is x^T x [C, C] of what it usually gets; None, or not finite and positive: weights are rounded one by one.
    """

    weight: Tensor  # [D, C + 2 E]
    scale: Tensor  # [1, D]
    exact: Tensor  # [E]: numbers of input channels

    def __init__(self, linear: nn.Linear, moment: Tensor | None = None) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        exact = torch.empty(0, dtype=torch.long, device=weight.device)
        rounded, scale = quantised(weight)
        if moment is not None and 0 < moment.trace() < torch.inf:
            count = min(_EXACT, weight.shape[1] // 8) // 8 * 8
            exact = (moment.diagonal() * weight.square().sum(dim=0)).topk(count).indices
            rounded = compensated(weight / scale, moment, exact)
        own = rounded.float()[:, exact]
        left = weight[:, exact] / scale - own
        self.register_buffer("weight", torch.cat([rounded.float(), own, left], dim=1).to(torch.float8_e4m3fn))
        self.register_buffer("scale", scale.T.contiguous())
        self.register_buffer("exact", exact)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        scale = scale_of(rows)
        rows = rows.float() / scale
        if len(self.exact):
            own = rows[:, self.exact]
            rounded = own.to(torch.float8_e4m3fn).float()
            rows = torch.cat([rows, own - rounded, rounded], dim=1)
        rows = rows.to(torch.float8_e4m3fn)
        if x.is_cuda:
            y = torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage]
                rows, self.weight.T, scale_a=scale, scale_b=self.scale, out_dtype=x.dtype, use_fast_accum=True
            )
        else:
            y = (F.linear(rows.float(), self.weight.float()) * scale * self.scale).to(x.dtype)
        if self.bias is not None:
            y = y + self.bias
        return y.unflatten(0, x.shape[:-1])


def compensated(weight: Tensor, moment: Tensor, exact: Tensor) -> Tensor:
    """A scaled weight [D, C] in e4m3, rounded so that x W^T changes little for x with x^T x = `moment` [C, C].

    The channels `exact` are rounded by themselves, since their errors are made up for elsewhere.
    """
    usual = moment.diagonal().mean()
    h = moment.double().index_fill(0, exact, 0.0).index_fill(1, exact, 0.0)
    h[exact, exact] = usual.double()
    order = h.diagonal().argsort(descending=True, stable=True)
    h = h[order][:, order] + _DAMP * usual * torch.eye(len(h), dtype=h.dtype, device=h.device)
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True).float()
    w, result = weight[:, order], torch.empty_like(weight, dtype=torch.float8_e4m3fn)
    for start in range(0, w.shape[1], _BLOCK):
        own = slice(start, start + _BLOCK)
        value = w[:, own].clamp(-_LARGEST, _LARGEST).to(torch.float8_e4m3fn)
        error = torch.linalg.solve_triangular(upper[own, own], w[:, own] - value.float(), upper=True, left=False)
        w[:, own.stop :] -= error @ upper[own, own.stop :]
        result[:, order[own]] = value
    result[:, exact] = weight[:, exact].to(torch.float8_e4m3fn)
    return result


def quantise_layers(model: nn.Module, read: Callable[[], object] | None = None) -> None:
    """Replace the linear maps in a decoder's layers with float8 ones.

    Args:
        model: the decoder.
        read: runs it on texts like those that it is for, from which the rounding is calibrated; it is called once for
            as many maps as there is room for. None: nothing is calibrated.

    Raises:
        ComputationError: the model has no list of layers, or no linear map that fits.
    """
    places = list(_places(model))
    if not places:
        raise ComputationError(
            f"{type(model).__name__}: no layer can be computed in float8; set text.dtype to bfloat16"
        )
    for group in _groups(places):
        moments: list[Tensor | None] = [None] * len(group)
        if read is not None:
            with _recorded([getattr(module, name) for module, name in group], moments):
                read()
        for number, (module, name) in enumerate(group):
            setattr(module, name, Float8Linear(getattr(module, name), moments[number]))
            moments[number] = None


def _places(model: nn.Module) -> Iterator[_Place]:
    layers = getattr(model, "layers", None)
    for module in layers.modules() if isinstance(layers, nn.ModuleList) else []:
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and not (child.in_features % _MULTIPLE or child.out_features % _MULTIPLE):
                yield module, name


def _groups(places: Sequence[_Place]) -> Iterator[list[_Place]]:
    """The places, in groups whose x^T x fit into memory."""
    group: list[_Place] = []
    held = 0
    for module, name in places:
        size = 4 * getattr(module, name).in_features ** 2
        if group and held + size > _MOMENTS:
            yield group
            group, held = [], 0
        group.append((module, name))
        held += size
    yield group


@contextmanager
def _recorded(maps: Sequence[nn.Module], moments: list[Tensor | None]) -> Iterator[None]:
    """Put x^T x of all that each map gets meanwhile into `moments`."""

    def hook(number: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].flatten(0, -2).float()
            seen = moments[number]
            moments[number] = x.T @ x if seen is None else seen.addmm_(x.T, x)

        return add

    hooks = [own.register_forward_pre_hook(hook(number)) for number, own in enumerate(maps)]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()
