"""FLAME's projector: every patch token into the LLM's space, then the mean over patches, then unit length.

Linear -> GELU -> Linear -> LayerNorm on each token; the mean comes after the LayerNorm, which does not commute with
it. (FLAME, arXiv 2411.11927; reference: model.py of the released code.)
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class PatchProjector(nn.Module):
    """Patch tokens [B, N, C] to one unit vector a picture, z [B, D]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.LayerNorm(hidden)
        )

    def forward(self, patches: Tensor) -> Tensor:
        z = self.layers(patches)  # [B, N, D]
        return F.normalize(z.mean(dim=1).float(), dim=-1)  # [B, D]
