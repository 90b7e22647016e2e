"""Which data of a run were made with its params, by `dvc.lock`; those made without DVC are trusted."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from flame_core.dvc_project.recorded import recorded_stages
from flame_core.layout import Layout
from flame_core.params import CaptionParams, IngestParams, LLMParams, Params, Source

_SOURCES = dict[str, Source]


class MadeWith:
    """Compares the params of finished stages with those of now."""

    def __init__(self, params: Params, layout: Layout) -> None:
        stages = recorded_stages(layout.root)
        self._params = params
        self._fetched, self._llm, self._captioned = (
            _recorded(stages.get(name)) for name in ("download", "fetch_llm", "caption")
        )
        of_ingest = _recorded(stages.get("ingest"))
        self.ingest = not of_ingest or (
            _read(_SOURCES, of_ingest.get("sources")) == params.sources
            and _read(IngestParams, of_ingest.get("ingest") or {}) == params.ingest
        )

    def has_listed(self, name: str) -> bool:
        """Whether a list of this source is that of these params."""
        found = _read(_SOURCES, self._fetched.get("sources"))
        return not self._fetched or (found or {}).get(name) == self._params.sources[name]

    def has_llm(self) -> bool:
        """Whether an LLM of this name is that of these params."""
        return not self._llm or _read(LLMParams, self._llm.get("llm") or {}) == self._params.llm

    def has_captions(self) -> bool:
        """Whether captions are those of these params, and of these samples."""
        found = _read(CaptionParams, self._captioned.get("caption") or {})
        return self.ingest and (not self._captioned or found == self._params.caption)


def _recorded(stage: Any) -> dict[str, Any]:
    of_files = stage.get("params") if isinstance(stage, dict) else None
    content = of_files.get("params.yaml") if isinstance(of_files, dict) else None
    return content if isinstance(content, dict) else {}


def _read(kind: Any, content: Any) -> Any:
    """A section of recorded params; None if it is not valid now."""
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError:
        return None
