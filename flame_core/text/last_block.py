"""Computes the LLM's last block only at the tokens that are read: queries and MLP there, keys and values at all tokens.

Only the last token of each facet is read, a few in a hundred, and nothing after the last block uses the others. Within
a block only attention mixes tokens, and for it the other tokens provide only keys and values. So the query and output
projections and the MLP run for the read tokens only; the others get zeros, which are never read. A read token gets the
same result as from the whole block. A block whose parts do not have the names and shapes of Llama's (Mistral, Qwen,
Gemma) is computed for all tokens.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from flame_core.text.attention import Packing


class AtReadTokens(nn.Module):
    """A map of single tokens, x [B, L, C] to [B, L, D], computed for tokens that are read, zeros for the others."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.reads: Tensor | None = None  # flat indices in [B, L]; None: all tokens

    def forward(self, x: Tensor) -> Tensor:
        if self.reads is None:
            return self.inner(x)
        y = self.inner(x.flatten(0, 1)[self.reads])  # [R, D]
        whole = y.new_zeros(x.shape[0] * x.shape[1], y.shape[-1])
        whole[self.reads] = y
        return whole.unflatten(0, x.shape[:2])


def compute_read_tokens_alone(model: Any, layer: int) -> None:
    """Limit the last block of a decoder, layer `layer`, to the tokens that the packing reads.

    If a packing is read at another layer, all tokens of this one are computed.
    """
    block = model.layers[-1] if isinstance(getattr(model, "layers", None), nn.ModuleList) else None
    attention, mlp = getattr(block, "self_attn", None), getattr(block, "mlp", None)
    linear = [getattr(attention, name, None) for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
    linear += [getattr(mlp, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if block is None or attention is None or mlp is None or not all(isinstance(each, nn.Linear) for each in linear):
        return
    narrowed = [AtReadTokens(each) for each in (attention.q_proj, attention.o_proj, mlp)]
    attention.q_proj, attention.o_proj, block.mlp = narrowed

    def note(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        packing: Packing | None = keywords.get("packing")
        here = packing is not None and packing.layer in (None, layer)
        for each in narrowed:
            each.reads = packing.reads if packing is not None and here else None

    block.register_forward_pre_hook(note, with_kwargs=True)
