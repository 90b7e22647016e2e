"""Facet-decoupled attention: a token sees the prefix and what came before it in its own facet, no other facet.

One rule, `sees`, for every backend. It is registered with `transformers`' AttentionInterface under `NAME`; the
packing travels as a keyword of the model's forward, so the model never builds or receives a mask of its own, and
scaling, soft-capping and sliding windows (on the restarted positions) are honoured layer by layer.

On a CPU: SDPA with a boolean mask [B, 1, L, H + L], the keys and values of a head of H tokens that all rows begin with
being computed once (`shared_head`). On a GPU: FlexAttention with a block mask, compiled.
(FLAME, arXiv 2411.11927, section 3.2; the reference's released mask leaks padding, this one does not.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.errors import ComputationError
from flame_core.text.facets import FacetSequence
from flame_core.text.shared_head import SharedHead

NAME = "flame_facets"
PAD_DOCUMENT = -1
Backend = Literal["sdpa", "flex"]


def sees(
    document_q: Tensor,
    document_k: Tensor,
    segment_q: Tensor,
    segment_k: Tensor,
    q: Tensor,
    k: Tensor,
    bidirectional: bool = False,
) -> Tensor:
    """Whether token q attends to token k. All arguments broadcast; `bidirectional` lets the prefix see itself whole.

    `sees(q, k) = document(q) == document(k) and ((segment(q) == segment(k) == 0 and bidirectional)
    or (k <= q and segment(k) in {0, segment(q)}))`
    """
    allowed = (k <= q) & ((segment_k == 0) | (segment_k == segment_q))
    if bidirectional:
        allowed = allowed | ((segment_q == 0) & (segment_k == 0))
    return (document_q == document_k) & allowed


@dataclass
class Packing:
    """Which document and segment each token of a batch belongs to, and its position. All are [B, L].

    `reads` are the flat places in [B, L] of the tokens that are read, facet by facet, sequence by sequence. The first H
    tokens of every sequence may stand in `head` instead of the rows; `recorded` is a head that this pass computes.
    """

    document: Tensor
    segment: Tensor
    position: Tensor
    reads: Tensor
    backend: Backend = "sdpa"
    head: SharedHead | None = None
    recorded: SharedHead | None = None
    _masks: dict[int | None, Any] = field(default_factory=dict, repr=False)

    def dense_mask(self, window: int | None) -> Tensor:
        """Boolean mask [B, 1, L, H + L]; `window` limits the distance in restarted positions."""
        if window not in self._masks:
            index = torch.arange(self.document.shape[1], device=self.document.device)
            d, s, p = self.document, self.segment, self.position
            mask = sees(d[:, :, None], d[:, None, :], s[:, :, None], s[:, None, :], index[:, None], index[None, :])
            if window is not None:
                mask &= p[:, :, None] - p[:, None, :] < window
            if self.head is not None:
                ahead = torch.arange(self.head.length, device=p.device)
                distance = p[:, :, None] - ahead
                seen = torch.ones_like(distance, dtype=torch.bool) if window is None else distance < window
                mask = torch.cat([seen, mask], dim=2)
            self._masks[window] = mask[:, None]
        return self._masks[window]

    def block_mask(self, window: int | None) -> Any:
        """The same rule as a FlexAttention block mask."""
        if window not in self._masks:
            from torch.nn.attention.flex_attention import create_block_mask

            d, s, p = self.document, self.segment, self.position

            def rule(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
                allowed = sees(d[b, q], d[b, k], s[b, q], s[b, k], q, k)
                return allowed if window is None else allowed & (p[b, q] - p[b, k] < window)

            rows, length = d.shape
            self._masks[window] = create_block_mask(rule, rows, None, length, length, device=str(d.device))
        return self._masks[window]


def facet_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    packing: Packing | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that `transformers` calls: query [B, H, L, E], key and value [B, G, L, E].

    Returns:
        The output [B, L, H, E] and no weights.

    Raises:
        ComputationError: the model did not hand the packing on, so its attention cannot be decoupled.
    """
    if packing is None:
        raise ComputationError(f"{type(module).__name__} does not pass the packing on to its attention")
    if packing.backend == "flex":
        out = _flex(packing)(
            query,
            key,
            value,
            block_mask=packing.block_mask(sliding_window),
            score_mod=_softcap_mod(softcap),
            scale=scaling,
            enable_gqa=True,
        )
        return out.transpose(1, 2), None
    if packing.recorded is not None:
        packing.recorded.of[module] = key, value
    if packing.head is not None:
        head_key, head_value = packing.head.of[module]
        key = torch.cat([head_key.expand(len(key), -1, -1, -1), key], dim=2)
        value = torch.cat([head_value.expand(len(value), -1, -1, -1), value], dim=2)
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    mask = packing.dense_mask(sliding_window)
    if softcap is None:
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    else:
        scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        scores = softcap * torch.tanh(scores / softcap)
        out = scores.masked_fill(~mask, -torch.inf).float().softmax(-1).to(value.dtype) @ value
    return out.transpose(1, 2), None


def register() -> str:
    """Make the attention known to `transformers`; returns its name for `attn_implementation`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, facet_attention)
    return NAME


@cache
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _flex(packing: Packing) -> Any:
    if packing.document.device.type == "cuda":
        return _compiled_flex()
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention  # uncompiled: slow, and exactly the same rule; for tests


@cache
def _softcap_mod(softcap: float | None) -> Any:
    if softcap is None:
        return None

    def cap(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return cap


def pack(rows: Sequence[Sequence[FacetSequence]], length: int, backend: Backend, device: str) -> tuple[Tensor, Packing]:
    """Lay sequences into rows of `length` tokens; what is left of a row is padding, a document of its own.

    Returns:
        Token ids [B, length] and the packing.
    """
    shape = (len(rows), length)
    ids = torch.zeros(shape, dtype=torch.long)
    document = torch.full(shape, PAD_DOCUMENT)
    segment = torch.zeros(shape, dtype=torch.long)
    position = torch.zeros(shape, dtype=torch.long)
    reads: list[int] = []
    for b, row in enumerate(rows):
        start = 0
        for number, sequence in enumerate(row):
            span = slice(start, start + len(sequence))
            ids[b, span] = torch.tensor(sequence.ids)
            document[b, span] = number
            segment[b, span] = torch.tensor(sequence.segment)
            position[b, span] = torch.tensor(sequence.position)
            reads += [b * length + start + i for i in sequence.readout]
            start += len(sequence)
        position[b, start:] = torch.arange(length - start)
    places = torch.tensor(reads, dtype=torch.long, device=device)
    return ids.to(device), Packing(document.to(device), segment.to(device), position.to(device), places, backend)
