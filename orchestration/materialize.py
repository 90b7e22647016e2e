"""Materialize assets in this process, without a web server; `make demo` runs this.

    python -m orchestration.materialize                            # everything
    python -m orchestration.materialize --select 'train.flame*'    # Dagster's asset selection
    python -m orchestration.materialize --refresh download         # look at the sources again
    python -m orchestration.materialize --set train.epochs=5       # the job `experiment`, in a workspace

Leaves the same `dvc.lock` as `dvc repro`. Runs are stored in the instance that `flame ui` shows. The terminal shows the
stages' output as if they ran there directly. Ends with the exit code of the stage that failed.
"""

from __future__ import annotations

import itertools
import logging
import sys
import warnings
from collections.abc import Sequence
from functools import reduce
from importlib.metadata import version
from typing import Annotated, Any

import dagster as dg
import typer
from dagster._core.definitions.asset_selection import DagsterInvalidAssetSelectionError

from flame_core.dvc_project.errors import DvcProjectError
from flame_core.dvc_project.project import DvcProject
from flame_core.errors import Interrupted, ParamsError, ResourceError
from flame_core.layout import Layout
from flame_core.names import shown
from flame_core.params.validation import merge
from flame_core.pipeline import runnable_params
from flame_core.program import begin, errors_in_a_sentence
from flame_core.remedies import advice
from flame_core.reporting import configure_logging, console, facts
from flame_core.settings import settings
from flame_core.workspace import nested_override, preset_names, split_override
from orchestration.dagster_dvc.assets import EXIT_CODE, REFRESH_TAG
from orchestration.instance import opened_in_shell, process_tag
from orchestration.project_definitions import build

ASSETS = "__ASSET_JOB"  # Dagster's name of the job that holds every asset
STOPPED = "stopped; what was finished is kept, and the same command resumes"
_ANTLR = "antlr4-python3-runtime"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}  # shows only the stages' own output


def materialize(
    layout: Layout,
    select: str | None = None,
    overrides: Sequence[str] = (),
    preset: str | None = None,
    refresh: Sequence[str] = (),
) -> int:
    """Bring the selected assets up to date; with overrides or a preset, the whole pipeline in a workspace.

    Returns:
        0, or the exit code of the stage that failed first, or 1 for another failure. The terminal has shown what
        failed.

    Raises:
        DvcProjectError: the project's files cannot be used.
        Interrupted: a signal stopped it and the running stage.
        ParamsError: `select` or an override cannot be read, or `flame run` would refuse the params; says what to write.
        ResourceError: the installed packages cannot read `select`.
    """
    if select and (overrides or preset):
        raise ParamsError("--select goes with neither --set nor --preset: the job `experiment` runs the whole pipeline")
    runnable_params(layout, overrides, preset)
    _require_stages(layout, refresh)
    definitions = build(layout, code_overrides=True)  # a user with a shell may run code anyway
    assets = _selected(select, definitions)
    job, config, tags = ASSETS, QUIET, {REFRESH_TAG: ",".join(refresh)} if refresh else {}
    if overrides or preset:
        values = _given(overrides)
        workspace = {"config": {"overrides": values, **_preset(layout, preset)}}
        job, config, assets = "experiment", {**QUIET, "ops": {"workspace": workspace}}, None
    with opened_in_shell(layout) as instance:
        result = definitions.resolve_job_def(job).execute_in_process(
            instance=instance,
            asset_selection=assets,
            raise_on_error=False,
            run_config=config,
            tags={**tags, **process_tag()},
        )
        _show(result)
        failures = result.get_step_failure_events()
        if any(map(_is_interruption, failures)):
            raise Interrupted(STOPPED)
        return 0 if result.success else next(filter(None, map(_exit_code, failures)), 1)


def _require_stages(layout: Layout, names: Sequence[str]) -> None:
    known = DvcProject(layout.root).stages()
    if unknown := [name for name in names if name not in known]:
        raise ParamsError(f"--refresh {shown(unknown[0])} is no stage; known stages: {', '.join(sorted(known))}")


def _given(overrides: Sequence[str]) -> dict[str, Any]:
    """The overrides by key; if one is given twice, all of them merged in order."""
    values = dict(map(split_override, overrides))
    return values if len(values) == len(overrides) else reduce(merge, map(nested_override, overrides), {})


def _preset(layout: Layout, preset: str | None) -> dict[str, str]:
    """The part of the job's config that names a preset, given by name or path."""
    if not preset:
        return {}
    return {"preset": preset} if preset in preset_names(layout) else {"preset_path": preset}


def _exit_code(failure: dg.DagsterEvent) -> int:
    """The stage's exit code, as in a shell, or 0 if the step failed for another reason."""
    said = failure.step_failure_data.user_failure_data
    found = said and said.metadata.get(EXIT_CODE)
    code = found.value if isinstance(found, dg.IntMetadataValue) and found.value else 0
    return 128 - code if code < 0 else code


def _selected(select: str | None, definitions: dg.Definitions) -> list[dg.AssetKey]:
    """The assets of a selection, all if there is none; an invalid or empty one is refused."""
    graph = definitions.resolve_asset_graph()
    if select is None:
        return sorted(dg.AssetSelection.all().resolve(graph))
    found: set[dg.AssetKey] = set()
    try:
        found |= dg.AssetSelection.from_string(select).resolve(graph)
        problem = "" if found else "it selects no asset"
    except (dg.DagsterInvalidSubsetError, DagsterInvalidAssetSelectionError) as error:
        problem = str(error)
    except TypeError:  # of antlr 4.9, for which Dagster's parser is not made
        raise ResourceError(
            f"--select: Dagster cannot read selections with antlr4-python3-runtime {version(_ANTLR)}, which DVC's "
            f"omegaconf asks for: `pip install '{_ANTLR}>=4.13,<4.14'`. All else works with both"
        ) from None
    if problem:
        forms = 'key:ingest, key:"train.flame"+, group:data, or several of these with `or` between'
        raise ParamsError(f"--select {select!r}: {problem}; write {forms}")
    return sorted(found)


def _show(result: dg.ExecuteInProcessResult) -> None:
    """Show one line per asset, and what failed."""
    lines: dict[str, str] = {}
    for event in result.filter_events(lambda event: event.is_step_materialization):
        materialization = event.step_materialization_data.materialization
        lines[materialization.asset_key.to_user_string()] = str(materialization.metadata["outcome"].value)
    if lines:
        facts("Materialized", lines)
    for evaluation in result.get_asset_check_evaluations():
        if not evaluation.passed:
            name = f"{evaluation.asset_key.to_user_string()}: {evaluation.check_name}"
            what = (evaluation.description or "").partition("\n")[0]  # the rest of it is advice as well
            told = [f"check failed: {name}: {what}", *advice(evaluation.check_name)]
            console.print("\n  ".join(told), markup=False, highlight=False, soft_wrap=True)
    failures = result.get_step_failure_events()
    if not result.success and not failures:
        event = result.get_run_failure_event()
        error = event.job_failure_data.error
        console.print(f"error: {error.message if error else event.message}", markup=False, soft_wrap=True)
    for event in itertools.filterfalse(_is_interruption, failures):
        failure = event.step_failure_data
        said = failure.user_failure_data.description if failure.user_failure_data else None
        error = failure.error
        said = said or (error.cause.message if error and error.cause else error.message if error else "")
        said = said if said.startswith(str(event.step_key)) else f"{event.step_key} failed: {said}"
        console.print(said, markup=False, highlight=False, soft_wrap=True)


def _is_interruption(event: dg.DagsterEvent) -> bool:
    """Whether a step ended because this process was interrupted."""
    source = event.step_failure_data.error_source
    return source is not None and source.name == "INTERRUPT"


def _as_said(record: logging.LogRecord) -> bool:
    """Remove the run, job and step that Dagster puts before a log line."""
    about = record.__dict__.get("dagster_meta")
    if about:
        record.msg, record.args = about["orig_message"], ()
    return True


def main(
    select: Annotated[str | None, typer.Option(help="Assets, in Dagster's selection syntax (default: all).")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a param, in a workspace.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="A file of presets/, in a workspace.")] = None,
    refresh: Annotated[list[str] | None, typer.Option(metavar="STAGE", help="Run a stage that did not change.")] = None,
) -> None:
    """Materialize assets in this process."""
    begin()
    with errors_in_a_sentence():
        configure_logging(settings().log_level)
        for handler in logging.getLogger().handlers:
            handler.addFilter(_as_said)
        warnings.simplefilter("ignore", dg.BetaWarning)  # the selection syntax
        try:
            sys.exit(materialize(Layout.find(), select, overrides or (), preset, refresh or ()))
        except DvcProjectError as error:
            raise ParamsError(str(error)) from error
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError) as stopped:  # between two stages
            raise Interrupted(STOPPED) from stopped


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
