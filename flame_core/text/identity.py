"""What stored vectors depend on besides their texts; if it changes, files of the store are computed again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flame_core.digest import value_digest
from flame_core.params import Params, Reading, TextParams
from flame_core.text.llm_adapter import ADAPTER
from flame_core.text.sentence import sentence_content

if TYPE_CHECKING:
    from flame_core.text.facets import FacetTokenizer


def rounding_of(text: TextParams) -> str:
    """`text.dtype`, and of float8 the version of its rounding."""
    from flame_core.text.float8 import VERSION

    return f"float8, version {VERSION}" if text.dtype == "float8" else text.dtype


def encoder_identity(params: Params, source: dict, template_hash: str, adapter: str | None = None) -> dict:
    """What a stored embedding depends on besides its text: LLM, its adapters, layer, template, numeric types."""
    text = params.text
    return {
        "llm": {
            "name": params.llm.name,
            "source": params.llm.source,
            "random_seed": params.llm.random_seed,
            "digest": value_digest(source["files"]),
            **({} if adapter is None else {ADAPTER: adapter}),
        },
        "layer": text.layer,
        "template_hash": template_hash,
        "normalise": text.normalise,
        "dtype": rounding_of(text),
        "store_dtype": text.store_dtype,
        "batch_tokens": text.batch_tokens,
        "cpu_threads": text.cpu_threads,
        "max_caption_tokens": text.max_caption_tokens,
    }


def sentence_identity(params: Params, source: dict, sentence_hash: str, adapter: str | None = None) -> dict:
    """What a stored sentence depends on besides its text: LLM, prompt and readout, numeric types."""
    facets = encoder_identity(params, source, "", adapter)
    shared = {name: facets[name] for name in ("llm", "dtype", "store_dtype", "batch_tokens", "cpu_threads")}
    content = sentence_content(params.text)
    return {**shared, "layer": content["layer"], "sentence": content, "sentence_hash": sentence_hash}


def store_identities(
    params: Params, source: dict[str, Any], tokens: FacetTokenizer, adapter: str | None
) -> dict[Reading, dict[str, Any]]:
    """What vectors depend on besides their texts, for each reading that params have.

    Args:
        params: of the run.
        source: what `fetch` recorded about the LLM.
        tokens: that read captions.
        adapter: digest of the LLM's adapters, if it has any.
    """
    found: dict[Reading, dict[str, Any]] = {"facets": encoder_identity(params, source, tokens.template_hash, adapter)}
    if tokens.sentence is not None:
        found["sentence"] = sentence_identity(params, source, tokens.sentence.digest, adapter)
    return found
