"""The last computed block of the LLM: queries and MLP at the tokens that are read, keys and values at all.

Only the last token of each facet is read, a few in a hundred, and behind the last block nothing looks at the others.
Within a block only attention mixes tokens, and there a token without a query of its own still gives key and value. So
the projections of query and output and the MLP run for the read tokens alone; the others get zeros, which are never
read. What a read token gets is what the whole block gives it. A block whose parts are not named and shaped as Llama's
(Mistral, Qwen, Gemma) is computed whole.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from flame_core.text.attention import Packing


class AtReadTokens(nn.Module):
    """A map of single tokens, x [B, L, C] to [B, L, D], that runs where a token is read and gives zeros elsewhere."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.reads: Tensor | None = None  # flat places in [B, L]; None: everywhere

    def forward(self, x: Tensor) -> Tensor:
        if self.reads is None:
            return self.inner(x)
        y = self.inner(x.flatten(0, 1)[self.reads])  # [R, D]
        whole = y.new_zeros(x.shape[0] * x.shape[1], y.shape[-1])
        whole[self.reads] = y
        return whole.unflatten(0, x.shape[:2])


def compute_read_tokens_alone(model: Any, layer: int) -> None:
    """Narrow the last block of a decoder, its layer number `layer`, to the tokens that its packing says are read.

    A packing that is read at another layer needs all tokens of this one.
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
