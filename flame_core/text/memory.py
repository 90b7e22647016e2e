"""Whether the LLM fits a GPU's memory, and what to set if not."""

from __future__ import annotations

from flame_core.errors import ResourceError
from flame_core.params import Params
from flame_core.processes.gpu import USABLE_SHARE
from flame_core.quantities import size_text


def require_llm_memory(params: Params, weight_bytes: int, free: int) -> None:
    """Refuse to load an LLM that does not fit a GPU's memory.

    Raises:
        ResourceError: says how much is missing and which param helps.
    """
    if weight_bytes <= free * USABLE_SHARE:
        return
    helps = "a smaller llm.source or text.layer"
    if params.text.dtype == "float32":
        helps = f"text.dtype bfloat16 ({size_text(weight_bytes / 2)}), or {helps}"
    raise ResourceError(
        f"{params.llm.name} up to layer {params.text.depth} needs {size_text(weight_bytes)} on a GPU in "
        f"{params.text.dtype}, {size_text(free)} are free: {size_text(weight_bytes - free * USABLE_SHARE)} are "
        f"missing. Set {helps}"
    )
