"""The edge from `opt_out.parquet` to the stages that heed it: in `dvc.yaml` if, and only if, there is such a file.

So everything downstream is stale by DVC after `flame forget`, and a project that never forgot has the same `dvc.lock`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from flame_core.errors import ParamsError
from flame_core.layout import OPT_OUT

READERS = ("download", "ingest", "domains")


def with_opt_out(stages: Mapping[str, Any]) -> dict[str, Any]:
    """Stages of a `dvc.yaml` with the edge."""
    return {
        name: {**stage, "deps": sorted({*(stage.get("deps") or []), OPT_OUT})} if name in READERS else stage
        for name, stage in stages.items()
    }


def lacking(stages: Mapping[str, Any]) -> list[str]:
    """The stages of a `dvc.yaml` that should have the edge and do not."""
    found = [(name, stages[name]) for name in READERS if isinstance(stages.get(name), dict)]
    return [name for name, stage in found if OPT_OUT not in (stage.get("deps") or [])]


def advice(pipeline: Path, stages: list[str]) -> str:
    """What to write if stages lack the edge."""
    return f"{pipeline}: add {OPT_OUT} to `deps` of the stage {', '.join(stages)}, or what was forgotten may come back"


def edited(pipeline: str, path: Path) -> str:
    """The text of a `dvc.yaml` with the edge; comments and all other lines stay.

    Raises:
        ParamsError: it is written in a way that cannot be edited by line; says what to write.
    """
    missing = lacking(yaml.safe_load(pipeline)["stages"])
    text = pipeline
    for name in missing:
        stage = re.search(rf"^(?P<indent> +){name}:[^\n]*\n(?:(?P=indent) +[^\n]*\n|[ \t]*\n)*", text, re.MULTILINE)
        if stage:
            text = text[: stage.start()] + _with_edge(stage[0]) + text[stage.end() :]
    content = yaml.safe_load(text)
    if missing and content["stages"] != _in_place(yaml.safe_load(pipeline)["stages"], missing):
        raise ParamsError(advice(path, missing))
    return text


def _with_edge(stage: str) -> str:
    """The lines of a stage with one dependency more: at the end of its list, or after its command."""
    flow = re.search(r"^( +deps: *\[)([^\]\n]*)\]", stage, re.MULTILINE)
    if flow:
        there = f"{flow[2]}, " if flow[2].strip() else ""
        return stage[: flow.start()] + f"{flow[1]}{there}{OPT_OUT}]" + stage[flow.end() :]
    block = re.search(r"^(?P<indent> +)deps:[ \t]*\n(?:(?P<item> +- )[^\n]*\n)+", stage, re.MULTILINE)
    if block:
        return stage[: block.end()] + f"{block['item']}{OPT_OUT}\n" + stage[block.end() :]
    return re.sub(r"^( +)(cmd:[^\n]*\n)", rf"\1\2\1deps: [{OPT_OUT}]\n", stage, count=1, flags=re.MULTILINE)


def _in_place(stages: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Stages as `edited` should leave them."""
    for name in names:
        stages[name]["deps"] = [*(stages[name].get("deps") or []), OPT_OUT]
    return stages
