"""Facet tokens in a ViT: one learned token per facet after the patches, with the same rule as facets in the LLM.

Patches see patches; facet token j sees the patches and itself, but no other facet. So a patch's output is the same as
without facet tokens, and a facet can be left out without changing the others. The prefix is bidirectional here
(`text.attention.sees`). If only the last m blocks have facet tokens, they are added before the first of these blocks.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from flame_core.errors import ParamsError
from flame_core.text.attention import sees
from flame_core.vision.token_subset import embedded, missing_parts, through


class FacetTokens(nn.Module):
    """F learned tokens in the last `blocks` blocks of a timm VisionTransformer of width C."""

    def __init__(self, backbone: Any, facets: int, blocks: int | Literal["all"]) -> None:
        super().__init__()
        missing = missing_parts(backbone)
        depth = 0 if missing else len(backbone.blocks)
        if missing or (blocks != "all" and blocks > depth):
            why = f"has no {', '.join(missing)}" if missing else f"has {depth} blocks"
            raise ParamsError(
                f"{blocks}, and the backbone {type(backbone).__name__} {why}; facet tokens need a plain ViT with at "
                "least as many blocks",
                key="train.model.facet_blocks",
            )
        self.tokens = nn.Parameter(torch.empty(facets, backbone.num_features))
        nn.init.trunc_normal_(self.tokens, std=0.02)
        self._blocks = depth if blocks == "all" else blocks

    def forward(self, backbone: Any, pictures: Tensor, keep: Tensor | None = None) -> Tensor:
        """Tokens of the last block [B, T + F, C]: the backbone's, then the facets; `keep` as in `token_subset`."""
        x = embedded(backbone, pictures, keep)  # [B, T, C]
        first = len(backbone.blocks) - self._blocks
        for block in backbone.blocks[:first]:
            x = through(backbone, block, x)
        own = x.shape[1]
        x = torch.cat([x, self.tokens.to(x.dtype).expand(len(x), -1, -1)], dim=1)
        mask = facet_mask(own, len(self.tokens), x.device)
        for block in backbone.blocks[first:]:
            x = through(backbone, block, x, mask)
        return backbone.norm(x)


def facet_mask(tokens: int, facets: int, device: torch.device) -> Tensor:
    """Which token sees which, [T + F, T + F]: the T `tokens` of the picture are segment 0, facet j is segment j."""
    index = torch.arange(tokens + facets, device=device)
    segment = (index - tokens + 1).clamp(min=0)
    one = torch.zeros(1, dtype=torch.long, device=device)  # a picture is one document
    return sees(one, one, segment[:, None], segment[None], index[:, None], index[None], bidirectional=True)
