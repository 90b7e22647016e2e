"""fetch_llm: the frozen LLM -> `data/llm/<name>/` (safetensors, tokenizer, `source.json`)."""

from __future__ import annotations

from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.reporting import facts
from flame_core.text.fetched_llm import fetched_llm
from flame_core.text.gguf_file import TERMS
from flame_core.text.llm import LICENCE, read_source
from flame_core.work import gather


def run(params: Params, layout: Layout) -> None:
    """Fetch the LLM of `params.llm`, once per source."""
    unit = fetched_llm(params.llm, layout)
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
