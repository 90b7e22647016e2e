"""What the training of a captioner begins with: the model that params name, whole, in part, or only its shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from flame_core.absent_outs import making
from flame_core.captioning.writer import require_llm
from flame_core.errors import InputError, ParamsError
from flame_core.model_files import CONFIG
from flame_core.params import CaptionLMParams
from flame_core.soft_prompts import WRITES
from flame_core.soft_prompts.frozen_llm import TEMPLATE, llm_digest
from flame_core.text.jobs import facet_count
from flame_core.vision.image_encoder import load_tower
from flame_core.vision.tower import ImageTower, tower_params


def started_config(params: CaptionLMParams, source: Path, llm: Path, hidden: int) -> dict[str, Any]:
    """The config of the captioner: that of the model, with the connector and how the LLM reads its prompts.

    Args:
        params: say with what it begins.
        source: the folder of the model.
        llm: the folder of the LLM.
        hidden: H, numbers of the LLM's input vectors.

    Raises:
        InputError: the model is missing or damaged, or its connector was trained for another LLM.
        ParamsError: there is no connector to begin with.
    """
    try:
        config = json.loads((source / CONFIG).read_text("utf-8"))
        model = dict(config["recipe"]["model"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{source} is not a usable model ({error}); run `{making(source)}`") from None
    writes = config.get(WRITES)
    if params.start == "aligned":
        if writes is None:
            raise ParamsError(
                f"caption_lm.start is aligned, and the tower in {source} has no connector: take the model of a recipe "
                "with the term prompts, or start unaligned"
            )
        require_llm(source, writes, llm)
    elif params.connector is not None:
        model["connector"] = params.connector.model_dump()
    if not model.get("connector"):
        raise ParamsError(
            f"caption_lm.connector: the tower in {source} has none, so say its sizes, such as {{prompts: 16}}"
        )
    template = params.template or (writes or {}).get("template", TEMPLATE)
    read = {"llm": llm_digest(llm), "llm_name": llm.name, "template": template, "max_tokens": params.max_tokens}
    kept = {
        name: config[name] for name in ("recipe_name", "hidden", "facets", "text_facets", "layer") if name in config
    }
    described = {"llm": config["llm"]} if "llm" in config else {}
    return {**kept, **described, "recipe": {**config["recipe"], "model": model}, WRITES: read, "prompt_dims": hidden}


def tower_of(config: Mapping[str, Any]) -> ImageTower:
    """The tower of a captioner's config with new weights."""
    return ImageTower(
        tower_params(config), config["hidden"], facet_count(config["facets"]), prompt_dims=config["prompt_dims"]
    )


def started_tower(params: CaptionLMParams, source: Path, config: Mapping[str, Any], scale: float) -> ImageTower:
    """The tower that training begins with; a new connector begins at the scale of the LLM's input embeddings."""
    torch.manual_seed(params.seed)
    tower = tower_of(config)
    assert tower.connector is not None
    if params.start != "scratch":
        weights = load_tower(source)[0].state_dict()
        own = tower.state_dict()
        if params.start == "unaligned":
            weights = {name: value for name, value in weights.items() if not name.startswith("connector.")}
        tower.load_state_dict({**own, **weights})
    if params.start != "aligned":
        tower.connector.start_at(scale)
    return tower
