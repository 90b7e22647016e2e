"""Heads that map a backbone's tokens into the LLM's space.

FLAME's: Linear -> GELU -> Linear -> LayerNorm on each token, then the mean over patches, then unit length. The mean
comes after the LayerNorm; the two do not commute. (FLAME, arXiv 2411.11927; reference: model.py of the released code.)
Facet tokens pass through the same layers one by one. In training on a GPU, the mean of many tokens is computed with
fewer matrix products (`mean_of_norms`).

LIFT's: the mean over patches after the backbone's norm, then Linear -> GELU -> Linear, then unit length. (LIFT, arXiv
2506.04209.) In place of the mean, the head `cls` has the CLS token, `linear` has it too and one linear map, and
`attention` timm's attention pooling.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from flame_core.gated_layer import Gated
from flame_core.vision.mean_of_norms import mean_of_norms

_TOKENS_PER_CHANNEL = 4  # from which `mean_of_norms` is faster


class PatchProjector(nn.Module):
    """Patch tokens [B, N, C] and facet tokens [B, F, C] to unit vectors z [B, 1 + F, D].

    z_0 = n(mean over patches of P(h_p)), z_j = n(P(h_facet_j)). With `recompute` the layers' activations are recomputed
    in backward instead of kept.
    """

    def __init__(self, width: int, hidden: int, recompute: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.LayerNorm(hidden)
        )
        self._recompute = recompute

    def forward(self, patches: Tensor, facets: Tensor | None = None) -> Tensor:
        z = self._mean(patches).float()  # [B, 1, D]
        if facets is not None:
            z = torch.cat([z, self._project(facets).float()], dim=1)  # [B, 1 + F, D]
        return F.normalize(z, dim=-1)

    def _mean(self, patches: Tensor) -> Tensor:
        """The mean patch in the LLM's space, [B, 1, D]."""
        layers: Any = self.layers
        first, activation, second, norm = layers
        many = patches.shape[0] * patches.shape[1] >= _TOKENS_PER_CHANNEL * second.out_features
        if patches.is_cuda and self.training and many and not self._recompute:
            return mean_of_norms(activation(first(patches)), second, norm)[:, None]
        return self._project(patches).mean(dim=1, keepdim=True)

    def _project(self, tokens: Tensor) -> Tensor:
        if self._recompute and self.training and torch.is_grad_enabled():
            return checkpoint(self.layers, tokens, use_reentrant=False)
        return self.layers(tokens)


class PooledProjector(nn.Module):
    """Patch tokens [B, N, C] to the unit vector z [B, 1, D] of their mean.

    Subclasses replace its layers after drawing them: the random numbers decide the first weights of all that follows.
    """

    def __init__(self, width: int, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or dim
        self.layers: nn.Module = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, patches: Tensor, facets: Tensor | None = None) -> Tensor:
        return F.normalize(self.layers(patches.mean(dim=1, keepdim=True)).float(), dim=-1)


class GatedProjector(PooledProjector):
    """SAIL's alignment layer instead of the MLP (arXiv 2412.04616)."""

    def __init__(self, width: int, dim: int, hidden: int | None = None) -> None:
        super().__init__(width, dim, hidden)
        self.layers = Gated(width, hidden or dim, dim)


class NoProjector(PooledProjector):
    """The mean patch as it is: ShareLock's pictures (arXiv 2410.07173)."""

    def __init__(self, width: int, dim: int, hidden: int | None = None) -> None:
        super().__init__(width, dim, hidden)
        self.layers = nn.Identity()


class LinearProjector(PooledProjector):
    """CLIP's: one linear map, whose weights come with those of the backbone (`model.init`)."""

    def __init__(self, width: int, dim: int, hidden: int | None = None) -> None:
        super().__init__(width, dim, hidden)
        self.layers = nn.Linear(width, dim)
