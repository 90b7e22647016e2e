"""NMTune's terms, and the four ways in which they are weighted.

    L = CE + w_mse L_MSE + w_cov L_COV + w_svd L_SVD

L_MSE keeps z near f, L_COV decorrelates the columns of z (and raises its SVDE), L_SVD strengthens the largest direction
(and lowers its LSVR). The paper and its released code differ in the scale of L_MSE, in L_SVD, and in all weights. Both
are here under their names, and nothing mixes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from flame_core.params import NMTUNE_TERMS, HeadPreset

_TOP = 5  # singular values of the released code's L_SVD


@dataclass(frozen=True)
class Weights:
    """What a preset minimises besides the cross entropy.

    Attributes:
        mse, cov, svd: the weights.
        mse_form: `sum`: squared distance of unit vectors; `element`: the same divided by D.
        svd_form: `first`: share of the largest singular value; `top`: mean share of the five largest.
    """

    mse: float = 0.0
    cov: float = 0.0
    svd: float = 0.0
    mse_form: Literal["sum", "element"] = "sum"
    svd_form: Literal["first", "top"] = "first"

    def times(self, factor: float) -> Weights:
        """All three weights times a factor."""
        return replace(self, mse=self.mse * factor, cov=self.cov * factor, svd=self.svd * factor)


WEIGHTS: Mapping[HeadPreset, Weights] = {
    "lp": Weights(),  # no head
    "mlp": Weights(),
    "paper": Weights(0.01, 0.01, 0.01),
    "code": Weights(1.0, 0.04, 0.001, "element", "top"),
}


def consistency(z: Tensor, f: Tensor, form: Literal["sum", "element"] = "sum") -> Tensor:
    """L_MSE of z [B, D] to the target f [B, D], which gets no gradient: 2 - 2 cos, or that divided by D."""
    distance = (F.normalize(z, dim=1) - F.normalize(f.detach(), dim=1)).square().sum(dim=1).mean()
    return distance if form == "sum" else distance / z.shape[1]


def decorrelation(z: Tensor) -> Tensor:
    """L_COV of z [n, D]: the squared covariances of different columns, summed and divided by D.

    With fewer rows than columns it is computed from the n x n products of rows, which is the same number.
    """
    n, dims = z.shape
    centred = z - z.mean(dim=0)
    of_columns = n >= dims
    products = (centred.T @ centred if of_columns else centred @ centred.T) / (n - 1)
    variances = products.diagonal() if of_columns else centred.square().sum(dim=0) / (n - 1)
    return (products.square().sum() - variances.square().sum()) / dims


def dominance(z: Tensor, form: Literal["first", "top"] = "first") -> Tensor:
    """L_SVD of z [n, D], not centred: minus the share of the largest singular value, or of the five largest (mean).

    Only the values are differentiated, so equal or zero ones are no trouble.
    """
    sigma = torch.linalg.svdvals(z)
    share = sigma / sigma.sum()
    return -share[0] if form == "first" else -share[:_TOP].mean()


def nmtune_loss(
    f_anchor: Tensor, z_w: Tensor, z_s: Tensor, logits: Tensor, y: Tensor, weights: Weights
) -> dict[str, Tensor]:
    """The loss of a batch of two views, w and s, of B pictures.

    Args:
        f_anchor: features of view w, [B, D].
        z_w: tuned features of view w, [B, D].
        z_s: the same of view s.
        logits: of both views, [2 B, C], w first.
        y: classes [B].
        weights: of the terms.

    Returns:
        `total`, `ce`, every term raw (`mse`, `cov`, `svd`) and weighted (`mse_w`, ...). A term without a weight is
        measured without a gradient.
    """
    z = torch.cat([z_w, z_s])
    found = {"ce": F.cross_entropy(logits, torch.cat([y, y]))}
    found["total"] = found["ce"]
    for name in NMTUNE_TERMS:
        weight = getattr(weights, name)
        with torch.set_grad_enabled(torch.is_grad_enabled() and weight > 0):
            if name == "mse":
                raw = consistency(z_s, f_anchor, weights.mse_form)
            elif name == "cov":
                raw = decorrelation(z)
            else:
                raw = dominance(z, weights.svd_form)
        found |= {name: raw, f"{name}_w": weight * raw}
        found["total"] = found["total"] + found[f"{name}_w"]
    return found
