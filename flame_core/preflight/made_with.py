"""Which data of a run were made with its params, by `dvc.lock`; those made without DVC are trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from flame_core.dvc_lock import read_lock
from flame_core.layout import Layout
from flame_core.params import IngestParams, LLMParams, Params, Source


class MadeWith:
    """Compares the params of finished stages with those of now."""

    def __init__(self, params: Params, layout: Layout) -> None:
        stages = read_lock(layout.root)
        self._params = params
        self._fetched, self._llm = (_recorded(stages.get(name)) for name in ("download", "fetch_llm"))
        of_ingest = _recorded(stages.get("ingest"))
        self.ingest = not of_ingest or (
            _sources_of(of_ingest) == params.sources and _ingest_of(of_ingest) == params.ingest
        )

    def has_listed(self, name: str) -> bool:
        """Whether a list of this source is that of these params."""
        found = _sources_of(self._fetched)
        return not self._fetched or (found or {}).get(name) == self._params.sources[name]

    def has_llm(self) -> bool:
        """Whether an LLM of this name is that of these params."""
        return not self._llm or _llm_of(self._llm) == self._params.llm


def _recorded(stage: Any) -> dict[str, Any]:
    of_files = stage.get("params") if isinstance(stage, dict) else None
    content = of_files.get("params.yaml") if isinstance(of_files, dict) else None
    return content if isinstance(content, dict) else {}


def _sources_of(content: Mapping[str, Any]) -> Any:
    try:
        return TypeAdapter(dict[str, Source]).validate_python(content.get("sources"))
    except ValidationError:
        return None


def _ingest_of(content: Mapping[str, Any]) -> IngestParams | None:
    try:
        return IngestParams.model_validate(content.get("ingest") or {})
    except ValidationError:
        return None


def _llm_of(content: Mapping[str, Any]) -> LLMParams | None:
    try:
        return LLMParams.model_validate(content.get("llm") or {})
    except ValidationError:
        return None
