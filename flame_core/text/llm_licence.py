"""What an LLM's files in `data/llm/<name>/` say about its licence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flame_core.text.gguf_file import TERMS
from flame_core.text.llm import LICENCE, SOURCE

NOT_STATED = "not stated in its files"


def licence_in(source: Mapping[str, Any]) -> str:
    """The licence of a `source.json`; those with terms of their own are written out."""
    stated = source.get(LICENCE)
    return NOT_STATED if stated is None else TERMS.get(str(stated), str(stated))


def stated_licence(folder: Path) -> str | None:
    """The licence of the LLM in a folder; None if its files are not there."""
    try:
        return licence_in(json.loads((folder / SOURCE).read_text("utf-8")))
    except (OSError, ValueError):
        return None
