"""Deps that stages of `dvc.yaml` have only with some params.

    caption     a trained captioner's LLM and its folder; a table of captions in `data/`; `data/raw`, whose columns are
                captions
    embed       the adapters that the LLM learned, with a section `adapt_llm`
    evaluate    the captioner of the section `caption_lm`, whose captions the report of its recipe shows

A matrix has the same deps for each of its recipes (docs/decisions/edges-between-models.md), so all evaluations wait for
the captioner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flame_core.captions.tables.places import is_of_the_run, table_place
from flame_core.graph.own_tables import unmade_tables
from flame_core.graph.section_stages import ADAPTER_OUT, linked_place, relative
from flame_core.layout import Layout
from flame_core.params import Params, recipe_of
from flame_core.params.captions import TrainedCaptioner

CAPTIONER = "data/captioner"
_OF_SECTIONS = {  # {stage: a dep that nothing makes without a section, and which}
    "embed": (ADAPTER_OUT, "`adapt_llm`"),
    "evaluate": (CAPTIONER, "`caption_lm` with a recipe that is listed"),
}


def added_deps(layout: Layout, params: Params) -> dict[str, list[str]]:
    """{stage: deps beside those that it always has}, as the stages of a run name them."""
    found = {
        "caption": _of_captions(layout, params),
        "embed": [ADAPTER_OUT] if params.adapt_llm else [],
        "evaluate": _of_evaluations(params),
    }
    return {stage: deps for stage, deps in found.items() if deps}


def _of_captions(layout: Layout, params: Params) -> list[str]:
    places: set[Path] = set()
    for each in (params.caption.short, params.caption.long):
        if isinstance(each, TrainedCaptioner):
            llm = layout.llm if each.llm is None else linked_place(layout, each.llm)
            places.add(layout.llm if layout.llm in llm.parents else llm)
            folder = _folder(layout, each.model)
            if folder is not None and layout.data not in folder.parents:  # one of this run is refused by the stage
                places.add(folder)
    tables = (table_place(layout, path) for _, chosen in params.caption.tables for _, path in chosen.tables)
    places |= {place for place in tables if is_of_the_run(layout, place)}
    return relative(layout, places | {layout.raw} if params.caption.columns else places)


def _folder(layout: Layout, model: str) -> Path | None:
    """The folder of a captioner; None of a version in MLflow, which has no path."""
    if model.startswith(("models:/", "runs:/")):
        return None
    place = layout.resolve(model)
    return place if "/" in model or place.is_dir() else layout.resolve(f"data/models/{model}")


def _of_evaluations(params: Params) -> list[str]:
    started = params.caption_lm and recipe_of(params.caption_lm)
    return [CAPTIONER] if started in params.train else []


def added_dep_faults(layout: Layout, params: Params, stages: Mapping[str, Any], pipeline: Path) -> Iterator[str]:
    """What stages of a `dvc.yaml` lack of such deps, and which they have that nothing makes."""
    yield from (f"{layout.params}: {'.'.join(key)}: {said}" for key, said in unmade_tables(layout, params, stages))
    added = added_deps(layout, params)
    for name, wanted in added.items():
        deps = _deps(stages, name)
        if deps is not None and (missing := [dep for dep in wanted if dep not in deps]):
            yield (
                f"{layout.params}: the stage {name} reads {', '.join(missing)}, and {pipeline} does not say so. Add to "
                f"the `deps` of the stage {name}: {', '.join(missing)}"
            )
    for name, (dep, section) in _OF_SECTIONS.items():
        if dep in (_deps(stages, name) or []) and dep not in added.get(name, ()):
            yield (
                f"{pipeline}: the stage {name} has the dep {dep}, and {layout.params} has no section {section}: remove "
                "the dep"
            )


def with_added_deps(stages: dict[str, Any], layout: Layout, params: Params) -> bool:
    """Give the stages of a workspace the deps that its params need; whether something changed."""
    wanted, changed = added_deps(layout, params), False
    for name in ("caption", *_OF_SECTIONS):
        deps = _deps(stages, name)
        if deps is None:
            continue
        kept = [dep for dep in deps if dep.startswith("data/") and dep != _OF_SECTIONS.get(name, ("", ""))[0]]
        own = [*kept, *(dep for dep in wanted.get(name, ()) if dep not in kept)]
        changed |= own != deps
        stages[name]["deps"] = own
    return changed


def _deps(stages: Mapping[str, Any], name: str) -> list[str] | None:
    """The deps of a stage; None if there is no such stage."""
    stage = stages.get(name)
    deps = stage.get("deps") if isinstance(stage, dict) else None
    return [str(dep) for dep in deps] if isinstance(deps, list) else None
