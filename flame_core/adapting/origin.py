"""What an LLM's adapters follow from: the units of their training are found by it, and `embed` asks for the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flame_core.digest import value_digest
from flame_core.layout import Layout
from flame_core.params import Params, Reading
from flame_core.text.identity import store_identities
from flame_core.text.llm_adapter import require_adapter
from flame_core.text.manifest import captions_digest

if TYPE_CHECKING:
    from flame_core.text.facets import FacetTokenizer

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


def run_identities(
    params: Params, layout: Layout, source: dict[str, Any], tokens: FacetTokenizer
) -> dict[Reading, dict[str, Any]]:
    """`store_identities` with the LLM's adapters, if this run has any.

    Raises:
        InputError: the adapters are missing, damaged, or follow from something else than this run.
        GateError: they failed a check.
    """
    plain = store_identities(params, source, tokens, None)
    if params.adapt_llm is None:
        return plain
    origin = learned_from(params, layout, value_digest(source["files"]), plain)
    return store_identities(params, source, tokens, require_adapter(layout, origin))
