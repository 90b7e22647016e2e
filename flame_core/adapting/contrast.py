"""The contrast of captions: the two of a picture find each other among those of a batch (LLM2CLIP, arXiv 2411.04997).

L = (CE(A B^T / temperature) + CE(B A^T / temperature)) / 2,    A, B [N, D] unit vectors of N pairs
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class HeldOut:
    """How well held-out pairs find each other: the loss, and the share whose nearest is the right one."""

    loss: float
    recall: float


def caption_contrast(a: Tensor, b: Tensor, again: Tensor, temperature: float) -> Tensor:
    """L of unit vectors a and b [N, D]; `again` [N, N] (`said_again`) marks pairs that are no wrong answers."""
    logits = masked(a @ b.T, again) / temperature
    right = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def held_out(a: Tensor, b: Tensor, again: Tensor, temperature: float) -> HeldOut:
    """The same loss and the recall@1, mean of both directions; ties count as wrong."""
    scores = masked(a @ b.T, again)
    wrong = scores.masked_fill(torch.eye(len(a), dtype=torch.bool, device=a.device), -torch.inf)
    right = scores.diagonal()
    found = (right > wrong.amax(dim=1)).float().mean() + (right > wrong.amax(dim=0)).float().mean()
    return HeldOut(float(caption_contrast(a, b, again, temperature)), float(found / 2))


def masked(scores: Tensor, again: Tensor) -> Tensor:
    """Scores [N, N] without those of `again`, but for the diagonal."""
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    return scores.masked_fill(again.to(scores.device) & ~own, -torch.inf)
