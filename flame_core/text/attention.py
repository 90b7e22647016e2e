"""Facet-decoupled attention: a token sees the prefix and the earlier tokens of its own facet, but no other facet.

One rule, `sees`, holds for every backend. The attention is registered with `transformers`' AttentionInterface under
`NAME`. The packing is a keyword argument of the model's forward, so the model neither builds nor receives a mask.
Scaling, soft-capping and sliding windows (on the restarted positions) are applied in each layer.

Sequences are laid end to end in a single row instead of each being padded to the longest. On a CPU: SDPA with one
boolean mask [L, H + L] for all sequences of the same shape; keys and values of the H tokens that all sequences begin
with are computed once (`shared_head`). On a GPU: compiled FlexAttention with a block mask over the row.
(FLAME, arXiv 2411.11927, section 3.2; the mask in the released reference code leaks padding, this one does not.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.errors import ComputationError
from flame_core.processes.compiling import allow_variants
from flame_core.processes.gpu import on_device
from flame_core.text.row_plan import BLOCK, Backend
from flame_core.text.sequence import FacetSequence
from flame_core.text.shared_head import SharedHead

NAME = "flame_facets"
PAD_DOCUMENT = -1


def sees(
    document_q: Tensor,
    document_k: Tensor,
    segment_q: Tensor,
    segment_k: Tensor,
    q: Tensor,
    k: Tensor,
    bidirectional: bool = False,
) -> Tensor:
    """Whether token q attends to token k. All arguments broadcast; `bidirectional`: prefix tokens see the whole prefix.

    `sees(q, k) = document(q) == document(k) and ((segment(q) == segment(k) == 0 and bidirectional)
    or (k <= q and segment(k) in {0, segment(q)}))`
    """
    allowed = (k <= q) & ((segment_k == 0) | (segment_k == segment_q))
    if bidirectional:
        allowed = allowed | ((segment_q == 0) & (segment_k == 0))
    return (document_q == document_k) & allowed


@dataclass(frozen=True)
class Run:
    """`count` consecutive sequences of `length` tokens with the same segments and positions: they share one mask."""

    start: int
    count: int
    length: int


@dataclass
class Packing:
    """How sequences are packed into a row of L tokens.

    Attributes:
        document, segment, position: [1, L], of each token.
        reads: indices in the row of the tokens that are read, by sequence and then by facet.
        runs: the row's sequences.
        first_block, last_block: [L / 128], the first and the last block of keys that each block of queries may see
            (flex).
        bidirectional: prefix tokens see the whole prefix, and a sliding window extends in both directions.
        layer: the decoder layer that is read, if the model is read at more than one.
        head: the first H tokens of every sequence, if they are not in the row.
        recorded: a head that this pass computes.
    """

    document: Tensor
    segment: Tensor
    position: Tensor
    reads: Tensor
    runs: list[Run]
    first_block: Tensor
    last_block: Tensor
    backend: Backend = "sdpa"
    bidirectional: bool = False
    layer: int | None = None
    head: SharedHead | None = None
    recorded: SharedHead | None = None
    _masks: dict[Any, Any] = field(default_factory=dict, repr=False)

    def dense_mask(self, run: Run, window: int | None) -> Tensor:
        """Boolean mask [length, H + length] of a run; `window` limits the distance in restarted positions."""
        if (run, window) not in self._masks:
            own = slice(run.start, run.start + run.length)
            d, s, p = self.document[0, own], self.segment[0, own], self.position[0, own]
            index = torch.arange(run.length, device=p.device)
            mask = sees(d[:, None], d[None], s[:, None], s[None], index[:, None], index[None], self.bidirectional)
            if window is not None:
                mask &= self._distance(p[:, None], p[None]) < window
            if self.head is not None:
                distance = p[:, None] - torch.arange(self.head.length, device=p.device)
                seen = torch.ones_like(distance, dtype=torch.bool) if window is None else distance < window
                mask = torch.cat([seen, mask], dim=1)
            self._masks[run, window] = mask
        return self._masks[run, window]

    def block_mask(self, window: int | None) -> Any:
        """The same rule as a FlexAttention block mask.

        The start of a block's first document determines which blocks of keys it may see, so the mask is never built
        token by token.
        """
        if window not in self._masks:
            from torch.nn.attention.flex_attention import BlockMask

            d, s, p = self.document, self.segment, self.position

            def rule(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
                allowed = sees(d[b, q], d[b, k], s[b, q], s[b, k], q, k, self.bidirectional)
                return allowed if window is None else allowed & (self._distance(p[b, q], p[b, k]) < window)

            length = d.shape[1]
            blocks = torch.arange(len(self.first_block), device=d.device)
            seen = (self.last_block - self.first_block + 1).to(torch.int32)  # blocks of keys per block of queries
            indices = (self.first_block[:, None] + blocks[None]).clamp(max=len(blocks) - 1).to(torch.int32)
            self._masks[window] = BlockMask.from_kv_blocks(
                seen[None, None], indices[None, None], BLOCK_SIZE=BLOCK, mask_mod=rule, seq_lengths=(length, length)
            )
        return self._masks[window]

    def _distance(self, q: Tensor, k: Tensor) -> Tensor:
        """Distance of a key's position k before a query's position q; if bidirectional, on either side of it."""
        return (q - k).abs() if self.bidirectional else q - k


@torch.compiler.disable  # layers are compiled around it; FlexAttention is compiled by itself
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
    """The attention function that `transformers` calls: query [1, H, L, E], key [1, G, L, E], value [1, G, L, V].

    Returns:
        The output [1, L, H, V] and no weights.

    Raises:
        ComputationError: the model did not pass the packing on, so its attention cannot be decoupled.
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
    head = None if packing.head is None else packing.head.of[module]
    out = value.new_empty(1, query.shape[2], query.shape[1], value.shape[-1])
    for run in packing.runs:
        q, k, v = (_rows(each, run) for each in (query, key, value))
        if head is not None:
            k, v = (torch.cat([h.expand(run.count, -1, -1, -1), x], dim=2) for h, x in zip(head, (k, v), strict=True))
        mask = packing.dense_mask(run, sliding_window)
        if softcap is None:
            own = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling, enable_gqa=True)
        else:
            k, v = (each.repeat_interleave(query.shape[1] // key.shape[1], 1) for each in (k, v))
            scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
            scores = softcap * torch.tanh(scores / softcap)
            own = scores.masked_fill(~mask, -torch.inf).float().softmax(-1).to(v.dtype) @ v
        _rows(out.transpose(1, 2), run).copy_(own)
    return out, None


def _rows(x: Tensor, run: Run) -> Tensor:
    """The sequences of a run as rows: a view [count, H, length, E] of x [1, H, L, E]."""
    own = x[0, :, run.start : run.start + run.count * run.length]
    return own.unflatten(1, (run.count, run.length)).transpose(0, 1)


def register() -> str:
    """Make the attention known to `transformers`; returns its name for `attn_implementation`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, facet_attention)
    return NAME


@cache
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def _flex(packing: Packing) -> Any:
    if packing.document.device.type == "cuda":
        allow_variants()  # those beyond torch's limit would be computed densely
        return _compiled_flex()
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention  # not compiled: slow, but the same rule; for tests


@cache
def _softcap_mod(softcap: float | None) -> Any:
    if softcap is None:
        return None

    def cap(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return cap


def pack(
    sequences: Sequence[FacetSequence], backend: Backend, device: str, length: int = 0, bidirectional: bool = False
) -> tuple[Tensor, Packing]:
    """Lay sequences end to end in a row; the rest up to `length` is padding, which is a separate document.

    This does not wait for the device: the row is copied to it from page-locked memory.

    Returns:
        Token ids [1, L] and the packing.
    """
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    used = int(lengths.sum())
    total = max(length, used)
    starts = np.cumsum(lengths) - lengths
    columns = np.zeros((4, total), np.int64)  # ids, document, segment, position
    columns[1] = PAD_DOCUMENT
    columns[1, :used] = np.repeat(np.arange(len(sequences)), lengths)
    for column, name in ((0, "ids"), (2, "segment"), (3, "position")):
        columns[column, :used] = np.fromiter(chain.from_iterable(getattr(s, name) for s in sequences), np.int64, used)
    columns[3, used:] = np.arange(total - used)
    counts = [len(sequence.readout) for sequence in sequences]
    reads = np.fromiter(chain.from_iterable(sequence.readout for sequence in sequences), np.int64, sum(counts))
    reads += np.repeat(starts, counts)
    # start of the document of each block's first token; the padding is a document too
    begins = np.append(np.repeat(starts, lengths), np.full(total - used, used))[::BLOCK]
    lasts = np.arange(len(begins))  # last block of keys; if tokens look ahead, the last one of their document
    if bidirectional:
        ends = np.append(np.repeat(starts + lengths - 1, lengths), np.full(total - used, total - 1))
        lasts = ends[np.minimum((lasts + 1) * BLOCK, total) - 1] // BLOCK
    ids, document, segment, position = to_device(columns, device)[:, None]
    runs: list[Run] = []
    for number, sequence in enumerate(sequences):
        if runs and _alike(sequence, sequences[number - 1]):
            runs[-1] = replace(runs[-1], count=runs[-1].count + 1)
        else:
            runs.append(Run(int(starts[number]), 1, len(sequence)))
    packing = Packing(
        document,
        segment,
        position,
        to_device(reads, device),
        runs,
        first_block=to_device(begins // BLOCK, device),
        last_block=to_device(lasts, device),
        backend=backend,
        bidirectional=bidirectional,
    )
    return ids, packing


def to_device(values: np.ndarray, device: str) -> Tensor:
    """Numbers on a device; the host does not wait for pending computations."""
    return on_device(torch.from_numpy(values), device)


def _alike(sequence: FacetSequence, other: FacetSequence) -> bool:
    return sequence.segment == other.segment and sequence.position == other.position
