"""Refuses embedding LLMs that need more than their decoder, by what their files say.

Embedding LLMs are often published with custom code and layers after the decoder. Only the decoder is run here, so a
folder that needs more would give other vectors than its authors intend.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flame_core.errors import InputError
from flame_core.params.text import SentenceParams

_PLAIN_MODULES = ("Transformer", "Pooling", "Normalize")  # of sentence-transformers; text.sentence covers these


def require_readable_sentences(folder: Path, params: SentenceParams) -> None:
    """Refuse an LLM folder whose sentence vectors need more than its decoder.

    Raises:
        InputError: names the file, what it asks for, and what to do.
    """
    config = _content(folder / "config.json")
    if isinstance(config, dict) and "latent_attention_config" in config:
        raise InputError(
            f"{folder / 'config.json'}: this model pools with latent attention (NV-Embed), which is code of its own "
            "that is not run here. Save its `embedding_model` (a Mistral) with its tokenizer to a folder, set "
            "llm.source to path:<that folder>, and text.sentence to read: mean, bidirectional: true, final_norm: true"
        )
    text = config.get("text_config", config) if isinstance(config, dict) else {}
    if isinstance(text, dict) and text.get("use_bidirectional_attention") and not params.bidirectional:
        raise InputError(
            f"{folder / 'config.json'} says use_bidirectional_attention: set text.sentence.bidirectional to true"
        )
    modules = _content(folder / "modules.json")
    kinds = [str(each.get("type", "")).rsplit(".", 1)[-1] for each in modules] if isinstance(modules, list) else []
    if others := [kind for kind in kinds if kind not in _PLAIN_MODULES]:
        raise InputError(
            f"{folder / 'modules.json'} puts {', '.join(others)} behind the LLM, which is not run here: take an "
            "embedding LLM that ends in pooling, or remove the file to read its decoder only"
        )


def _content(path: Path) -> Any:
    """The content of a JSON file; None if there is none."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
