"""Runs a stage, by hand or for DVC, and keeps `dvc.lock` true where DVC alone would not."""

from __future__ import annotations

import os
from functools import partial
from importlib import import_module

from flame_core.errors import ParamsError


def run_stage(name: str, **arguments: object) -> None:
    """Run a stage of the project in the current folder.

    Args:
        name: of its module in `flame_core/stages/`.
        arguments: of its function `run`: the recipe, if the stage has one for each, and `retry_failed`.

    Raises:
        ParamsError: the recipe is unknown, or params changed while the stage ran.
    """
    from flame_core.reporting import starting

    recipe = arguments.get("recipe")
    starting(" ".join(["flame", name.replace("_", "-"), *([str(recipe)] if recipe else [])]))

    from flame_core.graph.links import require_links
    from flame_core.graph.steady_params import listed_params, require_steady
    from flame_core.graph.versions import require_versions
    from flame_core.layout import Layout
    from flame_core.names import did_you_mean
    from flame_core.outside.noted import noting
    from flame_core.params import load_params
    from flame_core.processes.nodes import nodes

    layout = Layout.find()
    require_versions(layout)
    stage = "embed" if name == "embed_texts" else name if recipe is None else f"{name}@{recipe}"
    listed = listed_params(layout, stage)
    params = load_params(layout)
    if recipe is not None:
        if recipe not in params.train:
            hint = did_you_mean(str(recipe), params.recipes)
            raise ParamsError(
                f"{recipe!r} is not among the recipes of {layout.params};{hint} they are {', '.join(params.recipes)}"
            )
        require_links(layout, params)
    run = partial(import_module(f"flame_core.stages.{name}").run, params, layout, **arguments)
    if name == "train" and (where := nodes()) is not None and not where.first:
        run()
        return  # the first node writes the model, and records it
    with noting(params, layout, stage) as reads_outside:
        run()
        follows_from_more = reads_outside or name in ("download", "embed_texts")  # than DVC knows
        recorded_here = arguments.get("retry_failed") or follows_from_more
        if recorded_here or "DVC_STAGE" in os.environ:
            require_steady(layout, stage, listed)
    if recorded_here:
        from flame_core.commands.recorded_stage import record_stage

        record_stage(layout, stage)
