"""Texts as an LLM has them behind several of its layers, read in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.errors import ComputationError
from flame_core.text.encoder import TextEncoder
from flame_core.text.row_plan import plan_rows
from flame_core.text.sentence import SENTENCE


@torch.inference_mode()
def read_layers(
    encoder: TextEncoder, kind: str, texts: Sequence[str], layers: Sequence[int], advance: Callable[[int], None]
) -> dict[int, np.ndarray]:
    """{layer: unit vectors [N, D] in float32} of texts; each is the mean of its facets, or a sentence.

    Args:
        encoder: cut at the deepest of the layers.
        kind: of the texts; `sentence`, or one with a template.
        texts: N.
        layers: 1-based, before the final norm.
        advance: gets the number of texts of each finished row.

    Raises:
        ComputationError: the layers cannot be found, or a value is not finite; names the text.
    """
    how = encoder.sentence_pass if kind == SENTENCE else encoder.facet_pass
    if how is None:
        raise ComputationError("the LLM was not loaded for sentences: open it with TextEncoder.load")
    sequences = list(encoder.facets.encode_all(kind, texts))
    head, own = encoder.share(sequences, how)
    found: dict[int, list[np.ndarray]] = {layer: [np.empty(0)] * len(texts) for layer in layers}
    with _outputs(how.model, [layer for layer in layers if layer < how.layer]) as behind:
        for row in plan_rows([len(each) for each in own], encoder.params.batch_tokens, encoder.backend):
            members = [own[i] for i in row.members]
            behind[how.layer] = encoder.read_tokens(members, head, row.length, how)
            for layer, vectors in found.items():
                unit = _one_each(encoder, kind, behind[layer], members).cpu().numpy()
                if not np.isfinite(unit).all():
                    text = texts[row.members[int(np.isfinite(unit).all(axis=1).argmin())]]
                    raise ComputationError(f"the LLM's layer {layer} is not finite for {text[:200]!r}; use float32")
                for i, vector in zip(row.members, unit, strict=True):
                    vectors[i] = vector
            advance(len(members))
    return {layer: np.stack(vectors) for layer, vectors in found.items()}


def _one_each(encoder: TextEncoder, kind: str, hidden: Tensor, members: Sequence[Any]) -> Tensor:
    """[n, D] of the hidden values [R, D] at the tokens that are read."""
    if kind == SENTENCE:
        return encoder.reduced(hidden, members)
    return F.normalize(F.normalize(hidden, dim=-1).unflatten(0, (len(members), -1)).mean(dim=1), dim=-1)


@contextmanager
def _outputs(model: Any, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Notes what these decoder layers give at the tokens that are read, {layer: [R, D]}, in each pass."""
    behind: dict[int, Tensor] = {}
    blocks = getattr(model, "layers", None)
    if layers and not isinstance(blocks, nn.ModuleList):
        raise ComputationError(f"{type(model).__name__}: its list of layers was not found; name only its last layer")

    def note(layer: int) -> Callable[..., None]:
        def hook(block: nn.Module, inputs: Any, keywords: dict[str, Any], output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output  # [1, L, D]
            behind[layer] = hidden[0, keywords["packing"].reads].float()

        return hook

    hooks = [blocks[layer - 1].register_forward_hook(note(layer), with_kwargs=True) for layer in layers if blocks]
    try:
        yield behind
    finally:
        for hook in hooks:
            hook.remove()
