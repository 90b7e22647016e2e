"""What keeps prompts near the LLM's own input, and sentences apart: L_vocab and L_c of P-Former.

    L_vocab = mean of (p - r)^2 over all numbers,   r: the row of the input embeddings nearest to p, without gradient
    L_c     = mean over captions of the cross entropy of softmax(e_i . e'_j / tau) with label smoothing, target j = i

e and e' are unit vectors of the same captions in two passes with dropout, as in SimCSE. With one pass e' is e without
gradient: the target pulls nowhere, and the term only spreads captions, as in the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from flame_core.soft_prompts.frozen_llm import FrozenLLM

_DISTANCES = 2**24  # numbers at once: 64 MB in float32


@torch.no_grad()
def nearest_ids(llm: FrozenLLM, prompts: Tensor) -> Tensor:
    """Ids [...] of the rows of the input embeddings nearest to prompts [..., H]; of equal ones, the first."""
    flat = prompts.to(llm.device).float().flatten(0, -2)  # [N, H]
    best = torch.full((len(flat),), torch.inf, device=flat.device)
    found = torch.zeros(len(flat), dtype=torch.long, device=flat.device)
    block = max(1, _DISTANCES // len(flat))
    for start in range(0, llm.vocabulary, block):
        rows = llm.embedded(torch.arange(start, min(start + block, llm.vocabulary))).float()
        smallest, place = (rows.square().sum(dim=1) - 2 * flat @ rows.T).min(dim=1)  # less |p|^2
        closer = smallest < best
        best = torch.where(closer, smallest, best)
        found = torch.where(closer, place + start, found)
    return found.view(prompts.shape[:-1])


def vocabulary_loss(llm: FrozenLLM, prompts: Tensor) -> Tensor:
    """L_vocab of prompts [..., H]."""
    return F.mse_loss(prompts, llm.embedded(nearest_ids(llm, prompts)).to(prompts))


def contrast_loss(e: Tensor, other: Tensor | None, temperature: Tensor | float, smoothing: float) -> Tensor:
    """L_c of unit vectors [B, E] of one pass, and those of a second pass or None."""
    against = e.detach() if other is None else other
    logits = e @ against.T / temperature
    return F.cross_entropy(logits, torch.arange(len(e), device=e.device), label_smoothing=smoothing)
