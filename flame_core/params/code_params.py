"""The params that fetch a model or run its code: anyone who may set them can run programs on this machine.

They are `llm.source`, a captioner's `model`, `trust_remote_code` of both, `evaluate.baselines`, a teacher's `model`,
the models of taggers, codes and scorers, and in `train.model` and `features.model` a `backbone` from elsewhere
(`hf-hub:...`), `backbone_options` that load weights, and `init.source`. Whoever edits `params.yaml` or calls
`flame run --set` has a shell on this machine anyway. A visitor of a web page has not: there these keys keep the
project's values unless `FLAME_CODE_OVERRIDES` is set.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    towers = [("train.model", recipe.model) for recipe in params.train.values()]
    towers += [("features.model", params.features.model)] if params.features else []
    for key, model in towers:
        if ":" in model.backbone:
            found.append((f"{key}.backbone", model.backbone))
        if model.init is not None:
            found.append((f"{key}.init.source", model.init.source))
        options = model.backbone_options
        found += [(f"{key}.backbone_options.{name}", options[name]) for name in _LOADING_OPTIONS if name in options]
    return found + [(key, source) for key, source in _sources_of_others(params) if source]


def _sources_of_others(params: Params) -> Iterator[tuple[str, str | None]]:
    """(key, source) of other people's models, None where there is none."""
    for recipe in params.train.values():
        yield "train.teacher.model", recipe.teacher and recipe.teacher.model
    if params.concepts and params.concepts.images:
        yield "concepts.images.tagger.source", getattr(params.concepts.images.tagger, "source", None)
    yield "codes.tower.timm", params.codes and params.codes.tower.timm
    for name, scorer in (params.scores.scorers if params.scores else {}).items():
        yield f"scores.scorers.{name}.source", getattr(scorer, "source", None)
