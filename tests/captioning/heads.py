"""A prompt head as `flame prompts` leaves it, with weights that are not trained."""

from __future__ import annotations

from pathlib import Path

import torch

from flame_core import gates
from flame_core.digest import write_json
from flame_core.soft_prompts.prompt_head import PromptHead, PromptHeadConfig
from flame_core.verification import write_digests

SLOTS = {"reading": "facets", "slots": {"raw": ["raw/1"]}}


def write_head(folder: Path, llm: str = "a" * 64, **changes) -> PromptHead:
    """Save a head of 4 prompts in a folder, with checks and digests."""
    values = {"prompts": 4, "vector": 64, "hidden": 64, "width": 16, "scale": 0.1, "dropout": 0.5, "llm": llm}
    values |= {"llm_name": "tiny", "template": "{prompts}{caption}", "max_tokens": 32, "source": SLOTS}
    torch.manual_seed(0)
    head = PromptHead(PromptHeadConfig.model_validate(values | changes))
    folder.mkdir(parents=True, exist_ok=True)
    head.save(folder)
    write_json(folder / gates.CHECKS, [])
    write_digests(folder)
    return head.freeze()
