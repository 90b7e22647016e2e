"""Vector quantisation: each token becomes the code that is most similar to it, and gradients pass as if it had not.

    z = n(R u)                     u: a token on the sphere [E]; R [E, E] is learned; n divides by the length
    e = n(code most similar to z)  codes [K, E] are learned
    passed on: z + sg(e - z)       sg stops the gradient, so z gets that of e (straight-through)

Two terms draw z and e together, each a mean over tokens:

    codebook    |sg(z) - e|^2      moves the codes
    commitment  |z - sg(e)|^2      moves the tokens
    L_VQ = codebook + beta commitment      `corrected`, as van den Oord et al. have it
    L_VQ = beta codebook + commitment      `legacy`, as the released code of TL;DR computes it

A code that no token has had lately is moved to one of the tokens that are least similar to their codes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from flame_core.params import VqForm

_DECAY = 0.95  # of the count of a code's tokens, per step
_LATELY = 0.5  # decayed number of tokens below which a code is moved


class VqTerms(NamedTuple):
    """The two terms, each a scalar."""

    codebook: Tensor
    commitment: Tensor

    def loss(self, beta: float, form: VqForm) -> Tensor:
        """L_VQ."""
        if form == "legacy":
            return beta * self.codebook + self.commitment
        return self.codebook + beta * self.commitment


def vq_terms(z: Tensor, e: Tensor) -> VqTerms:
    """The terms of tokens z [n, E] and their codes e [n, E]."""
    return VqTerms(*((a - b).square().sum(dim=-1).mean() for a, b in ((z.detach(), e), (z, e.detach()))))


def straight_through(z: Tensor, e: Tensor) -> Tensor:
    """e, with the gradient of z."""
    return z + (e - z).detach()


class Quantized(NamedTuple):
    """What becomes of tokens [..., E].

    Attributes:
        passed: their codes as directions, [..., E], with the gradient of z.
        numbers: their codes, [n] with all leading dimensions in one.
        cosine: of z with its code, [n].
        terms: of L_VQ.
    """

    passed: Tensor
    numbers: Tensor
    cosine: Tensor
    terms: VqTerms


class VectorQuantizer(nn.Module):
    """R, the codes, and how many tokens each code had lately."""

    used: Tensor

    def __init__(self, codes: Tensor) -> None:
        """Begin with codes [K, E], and R = 1."""
        super().__init__()
        self.turn = nn.Parameter(torch.eye(codes.shape[1]))
        self.codes = nn.Parameter(normalize(codes.float(), dim=1))
        self.register_buffer("used", torch.ones(len(codes)))

    def forward(self, tokens: Tensor) -> Quantized:
        """Quantise tokens [..., E]."""
        z = normalize((tokens @ self.turn.T).flatten(0, -2), dim=1)
        codes = normalize(self.codes, dim=1)
        with torch.no_grad():
            cosine, numbers = (z @ codes.T).max(dim=1)
        e = codes[numbers]
        return Quantized(straight_through(z, e).view_as(tokens), numbers, cosine, vq_terms(z, e))

    @torch.no_grad()
    def restart(self, tokens: Tensor, found: Quantized) -> Tensor:
        """Count a step's tokens [..., E], and move codes that had almost none lately; returns the numbers of these."""
        count = len(self.codes)
        self.used.mul_(_DECAY).add_(torch.bincount(found.numbers, minlength=count))
        dead = torch.nonzero(self.used < _LATELY).flatten()[: len(found.numbers)]
        if len(dead):
            far = torch.argsort(found.cosine, stable=True)[: len(dead)]
            self.codes[dead] = normalize(tokens.flatten(0, -2)[far] @ self.turn.T, dim=1)
            self.used[dead] = 1.0
        return dead
