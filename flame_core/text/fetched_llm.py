"""An LLM in the work cache: fetched and converted once per source, whoever asks for it."""

from __future__ import annotations

from pathlib import Path

from flame_core.layout import Layout
from flame_core.params import LLMParams
from flame_core.text.llm import fetch
from flame_core.work import Unit, UnitRecord, WorkCache


def fetched_llm(llm: LLMParams, layout: Layout) -> Unit:
    """The unit with its weights, tokenizer and `source.json`.

    Raises:
        InputError: the source is missing or damaged.
        ResourceError: it cannot be fetched.
    """

    def write(folder: Path) -> UnitRecord:
        fetch(llm, layout, folder)
        return UnitRecord({"files": len(list(folder.iterdir()))})

    described = llm.model_dump(exclude=None if llm.sha256 else {"sha256"})
    return WorkCache(layout.work, "fetch_llm").get({"llm": described}, write)
