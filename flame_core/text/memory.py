"""Whether the LLM fits a GPU's memory, and what to set if not."""

from __future__ import annotations

from flame_core.errors import ResourceError
from flame_core.params import Params

_GB = 1e9
_SHARE = 0.92  # of the free memory; the rest is lost in the allocator


def require_llm_memory(params: Params, weight_bytes: int, free: int) -> None:
    """Refuse to load an LLM that does not fit a GPU's memory.

    Raises:
        ResourceError: says how much is missing and which param helps.
    """
    if weight_bytes <= free * _SHARE:
        return
    helps = "a smaller llm.source or text.layer"
    if params.text.dtype == "float32":
        helps = f"text.dtype bfloat16 ({weight_bytes / 2 / _GB:.1f} GB), or {helps}"
    raise ResourceError(
        f"{params.llm.name} up to layer {params.text.depth} needs {weight_bytes / _GB:.1f} GB on a GPU in "
        f"{params.text.dtype}, {free / _GB:.1f} GB are free: {(weight_bytes - free * _SHARE) / _GB:.1f} GB are "
        f"missing. Set {helps}"
    )
