"""The params that fetch a model or run its code: anyone who may set them can run programs on this machine.

They are `llm.source`, a captioner's `model`, `trust_remote_code` of both, `evaluate.baselines`, and in `train.model` a
`backbone` from elsewhere (`hf-hub:...`) and `backbone_options` that load weights. Whoever edits `params.yaml` or calls
`flame run --set` has a shell on this machine anyway. A visitor of a web page has not: there these keys keep the
project's values unless `FLAME_CODE_OVERRIDES` is set.
"""

from __future__ import annotations

from typing import Any

from flame_core.params import Params

_LOADING_OPTIONS = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def changed_code(params: Params, base: Params) -> list[str]:
    """The keys of `params` that fetch models or run code and whose values differ from those in `base`."""
    before = _values(base)
    return sorted({key for key, value in _values(params) if (key, value) not in before})


def _values(params: Params) -> list[tuple[str, Any]]:
    """(key, value) of all params that fetch models or run code and are set."""
    found: list[tuple[str, Any]] = [("llm.source", params.llm.source)]
    if params.llm.trust_remote_code:
        found.append(("llm.trust_remote_code", params.llm.source))
    for kind in ("short", "long"):
        captioner = getattr(params.caption, kind)
        if model := getattr(captioner, "model", None):
            found.append((f"caption.{kind}.model", model))
            if getattr(captioner, "trust_remote_code", False):
                found.append((f"caption.{kind}.trust_remote_code", model))
    found += [("evaluate.baselines", source) for source in params.evaluate.baselines.values()]
    for recipe in params.train.values():
        if ":" in recipe.model.backbone:
            found.append(("train.model.backbone", recipe.model.backbone))
        options = recipe.model.backbone_options
        found += [(f"train.model.backbone_options.{key}", options[key]) for key in _LOADING_OPTIONS if key in options]
    return found
