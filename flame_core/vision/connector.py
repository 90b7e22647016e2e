"""P-Former's image side: learned queries that look at patch tokens and become prompts for the LLM.

    q <- q + attention(norm(q), norm(patches));   q <- q + MLP(norm(q))      once or twice
    v = scale * (W norm(q) + b)                                              [B, n, H]

`scale` is the root mean square of the LLM's input embeddings, so that prompts start where the LLM's own input lies.
(P-Former, arXiv 2307.07063, whose connector is BLIP-2's Q-Former; this one is smaller.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.params import ConnectorParams


class Connector(nn.Module):
    """Patch tokens [B, N, C] to n prompts v [B, n, H] for the LLM."""

    scale: Tensor

    def __init__(self, width: int, params: ConnectorParams, hidden: int) -> None:
        """Take C, the sizes of the queries, and H."""
        super().__init__()
        self.queries = nn.Parameter(torch.randn(params.prompts, params.width))
        self.patches = nn.LayerNorm(width)
        self.layers = nn.ModuleList(_Layer(params.width, width, params.heads) for _ in range(params.layers))
        self.norm = nn.LayerNorm(params.width)
        self.output = nn.Linear(params.width, hidden)
        nn.init.normal_(self.output.weight, std=params.width**-0.5)
        nn.init.zeros_(self.output.bias)
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def start_at(self, scale: float) -> None:
        """Set the root mean square of the first prompts, that of the LLM's input embeddings."""
        self.scale.fill_(scale)

    @property
    def prompts(self) -> int:
        """The number n of prompts."""
        return len(self.queries)

    @property
    def hidden(self) -> int:
        """H, numbers of a prompt."""
        return self.output.out_features

    def forward(self, patches: Tensor) -> Tensor:
        seen = self.patches(patches)
        q = self.queries.expand(len(patches), -1, -1)  # [B, n, W]
        for layer in self.layers:
            q = layer(q, seen)
        return self.scale * self.output(self.norm(q))


class _Layer(nn.Module):
    """Queries [B, n, W] look at patches [B, N, C], then pass an MLP."""

    def __init__(self, width: int, seen: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(seen, width), nn.Linear(seen, width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, q: Tensor, patches: Tensor) -> Tensor:
        parts = (self.query(self.norm1(q)), self.key(patches), self.value(patches))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        found = F.scaled_dot_product_attention(query, key, value)  # [B, heads, n, W / heads]
        q = q + self.out(found.transpose(1, 2).flatten(2))
        return q + self.mlp(self.norm2(q))
