"""Whether a recipe can learn from a prompt head: the same LLM, vectors of the same captions, as many prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flame_core.errors import ParamsError
from flame_core.params import TrainParams
from flame_core.soft_prompts import WRITES


def prompt_faults(recipe: TrainParams, folder: Path) -> Iterator[str]:
    """Why a connector does not have the prompts of a head that is there already."""
    try:
        made = json.loads((folder / "config.json").read_text("utf-8"))["prompts"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # missing or damaged, which is said of all links
    if recipe.model.connector is not None and recipe.model.connector.prompts != made:
        yield f"the head in {folder} makes {made} prompts per caption: set it to {made}"


def require_references(
    recipe: TrainParams, folder: Path, slots: Sequence[str], hidden: int, llm: Mapping[str, Any]
) -> dict[str, Any]:
    """Refuse a prompt head that a recipe cannot learn from.

    Args:
        recipe: with the term `prompts`.
        folder: of the prompt head.
        slots: names of the texts that the recipe draws.
        hidden: D, dimensions of these texts.
        llm: of the store, as its manifest describes it.

    Returns:
        What a model's config says about its prompts, under `writes`: the LLM, the template, the longest caption.

    Raises:
        ParamsError: numbers or texts differ; says what to change.
        InputError: the head is for another LLM, or damaged.
    """
    from flame_core.objectives.prompt_alignment import require_fit
    from flame_core.soft_prompts.prompt_head import PromptHead

    head = PromptHead.load(folder)
    require_fit(head, recipe.model.connector and recipe.model.connector.prompts, hidden, folder)
    head.require_llm(llm["digest"], llm["name"])
    known = head.config.source.get("slots")
    if known is None:
        raise ParamsError(
            f"the head in {folder} does not read stored vectors, which a recipe's captions are: run `flame prompts` "
            "without prompts.encoder"
        )
    learned = [name for own in known.values() for name in own]
    if strange := [name for name in slots if name not in learned]:
        raise ParamsError(
            f"train: the recipe draws the texts {', '.join(strange)}, and the head in {folder} was trained on "
            f"{', '.join(learned)}: give both the same reading and kinds, and a reading with one vector per caption"
        )
    own = head.config
    return {WRITES: {"llm": own.llm, "llm_name": own.llm_name, "template": own.template, "max_tokens": own.max_tokens}}
