"""What an LLM's adapters follow from: the units of their training are found by it, and `embed` asks for the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flame_core.layout import Layout
from flame_core.params import Params, Reading
from flame_core.text.manifest import captions_digest

_OF_STORES = ("llm", "store_dtype", "batch_tokens")  # of an identity: no training depends on them


def learned_from(
    params: Params, layout: Layout, llm: str, identities: Mapping[Reading, Mapping[str, Any]]
) -> dict[str, Any]:
    """The section's values, the LLM, the training captions, and how they are read.

    Args:
        params: of the run, with a section `adapt_llm`.
        layout: of the run.
        llm: digest of the LLM's files.
        identities: of vectors of the LLM without adapters, by reading.
    """
    chosen = params.adapt_llm
    assert chosen is not None
    own = identities[chosen.reading]
    return {
        "params": chosen.identity,
        "llm": llm,
        "captions": captions_digest(layout.captions, "train"),
        "language": params.evaluate.train_language,
        "reads": {name: value for name, value in own.items() if name not in _OF_STORES},
    }
