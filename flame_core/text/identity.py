"""What stored vectors depend on besides their texts; if it changes, files of the store are computed again."""

from __future__ import annotations

from flame_core.digest import value_digest
from flame_core.params import Params, TextParams
from flame_core.text.float8 import VERSION
from flame_core.text.llm_adapter import ADAPTER
from flame_core.text.sentence import sentence_content


def rounding_of(text: TextParams) -> str:
    """`text.dtype`, and of float8 the version of its rounding."""
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
