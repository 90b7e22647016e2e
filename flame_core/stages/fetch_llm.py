"""fetch_llm: the frozen LLM -> `data/llm/<name>/` (safetensors, tokenizer, `source.json`)."""

from __future__ import annotations

from pathlib import Path

from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.reporting import facts
from flame_core.text.gguf_file import TERMS
from flame_core.text.llm import LICENCE, fetch, read_source
from flame_core.work import UnitRecord, WorkCache, gather


def run(params: Params, layout: Layout) -> None:
    """Fetch the LLM of `params.llm`, once per source."""

    def write(folder: Path) -> UnitRecord:
        fetch(params.llm, layout, folder)
        return UnitRecord({"files": len(list(folder.iterdir()))})

    described = params.llm.model_dump(exclude=None if params.llm.sha256 else {"sha256"})
    unit = WorkCache(layout.work, "fetch_llm").get({"llm": described}, write)
    files = {f"{params.llm.name}/{name}": unit.file(name) for name in unit.names()}
    gather(
        layout.llm,
        layout.state,
        files,
        sha256={f"{params.llm.name}/{name}": unit.sha256[name] for name in unit.names()},
    )
    folder = layout.llm / params.llm.name
    stated = read_source(folder).get(LICENCE)
    terms = {} if stated is None else {"licence": TERMS.get(stated, stated)}
    facts("fetch_llm", {"LLM": params.llm.name, "source": params.llm.source, **terms, "in": folder})
