"""Asset checks: shows the `checks.json` in a stage's out (`flame_core/gates.py`) in Dagster.

Nothing is measured here. Dagster must know the names of checks before anything runs, so each stage of `dvc.yaml` lists
them (`meta: dagster: checks:`). A check that a stage makes several times is named `<source>/<name>` in the file by
`download` and `<name>/<language>` by all others, and shown as one asset check, `<name>`, which fails if one does.

A blocking check gets severity ERROR and stops the run; any other is a warning. A failed blocking check that the stage
does not list also fails the asset, so that no failure is missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg

from flame_core import gates, remedies
from flame_core.dvc_project.project import DvcProject, Stage
from flame_core.errors import InputError
from flame_core.gates import Check
from flame_core.markdown import code_span
from flame_core.params import Params, UrlsSource
from flame_core.remedies import advice

DOWNLOAD, CAPTION, EVALUATE = "download", "caption", "evaluate"  # the stages
GO_ON = f"materialize it again, or go on with `{remedies.GO_ON}`"
KINDS = ("short", "long")  # of captions that params may leave out


def applicable(stages: Mapping[str, Stage], params: Params) -> dict[str, Stage]:
    """The stages without the checks that these params do not make: `long_failed` where `caption.long` is null."""
    unwritten = [kind for kind in KINDS if getattr(params.caption, kind) is None]
    absent = {
        DOWNLOAD: () if any(isinstance(source, UrlsSource) for source in params.sources.values()) else ("success",),
        CAPTION: (*(f"{kind}_" for kind in unwritten), *(("caption_words",) if len(unwritten) == len(KINDS) else ())),
        EVALUATE: (
            *(("spectrum_",) if params.evaluate.spectrum is None else ()),
            *(("benchmarks_disjoint",) if params.evaluate.looks_disjoint is None else ()),
        ),
    }
    found = dict(stages)
    for name, stage in stages.items():
        if prefixes := absent.get(name.partition("@")[0]):
            found[name] = _without(stage, prefixes)
    return found


def _without(stage: Stage, prefixes: tuple[str, ...]) -> Stage:
    meta = stage.meta.get("dagster", {})
    kept = [check for check in meta.get("checks", []) if not check.startswith(prefixes)]
    return replace(stage, meta={**stage.meta, "dagster": {**meta, "checks": kept}})


def read_checks(project: DvcProject, stage: Stage, declared: Sequence[str]) -> list[dg.AssetCheckResult]:
    """One result per declared check of a stage, from the `checks.json` of its outs.

    Raises:
        dagster.Failure: a blocking check that the stage does not declare failed.
    """
    try:
        found = [check for out in stage.outs for check in _read(project.root / out)]
    except InputError as error:
        return [_absent(name, str(error)) for name in declared]
    by_name = {name: [check for check in found if _declared_as(stage, check) == name] for name in declared}
    undeclared = [check for check in found if _declared_as(stage, check) not in declared]
    if failed := [check.name for check in undeclared if check.blocking and not check.passed]:
        raise dg.Failure(
            f"{stage.name} failed blocking checks that dvc.yaml does not list in its meta.dagster.checks: "
            + ", ".join(sorted(failed)),
            allow_retries=False,
        )
    unlisted = ", ".join(sorted(check.name for check in undeclared))
    return [_result(name, checks) if checks else _none(name, unlisted) for name, checks in by_name.items()]


def _declared_as(stage: Stage, check: Check) -> str:
    """The part of a check's name that the stage lists; the others say what it is of, such as a source."""
    parts = check.name.split("/")
    return parts[-1] if stage.name == DOWNLOAD else parts[0]


def _read(out: Path) -> list[Check]:
    if out.is_dir() and not (out / gates.CHECKS).exists():
        return []  # one of several outs
    return gates.read(out)


def _absent(name: str, why: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name, passed=False, severity=dg.AssetCheckSeverity.WARN, description=f"not measured: {why}"
    )


def _none(name: str, unlisted: str) -> dg.AssetCheckResult:
    """The result of a listed check that the file lacks: params leave nothing to check, or the check was renamed."""
    if unlisted:
        return _absent(name, f"{gates.CHECKS} lacks it, but has {unlisted}, which dvc.yaml does not list")
    return dg.AssetCheckResult(check_name=name, passed=True, description="nothing to check with these params")


def _result(name: str, checks: Sequence[Check]) -> dg.AssetCheckResult:
    failed = [check for check in checks if not check.passed]
    blocking = any(check.blocking for check in failed or checks)
    rows = [
        dg.TableRecord(
            {
                "check": check.name,
                "passed": check.passed,
                "measured": gates.shown(check.value),
                "threshold": gates.shown(check.threshold),
                "examples": ", ".join(check.keys),
            }
        )
        for check in (*failed, *(check for check in checks if check.passed))
    ]
    metadata: dict[str, Any] = {"checks": dg.MetadataValue.table(rows, _COLUMNS)}
    if len(checks) == 1:  # Dagster plots numbers over time
        metadata |= {key: value for key in ("value", "threshold") if _is_number(value := getattr(checks[0], key))}
    if keys := [key for check in failed for key in check.keys]:
        metadata["keys"] = dg.MetadataValue.md("\n".join(f"- {code_span(key)}" for key in keys))
    return dg.AssetCheckResult(
        check_name=name,
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
        description=_described(name, checks, failed),
        metadata=metadata,
    )


def _described(name: str, checks: Sequence[Check], failed: Sequence[Check]) -> str:
    """What is checked; of a failed check also what was measured, and how to go on."""
    what = "; ".join(sorted({check.description for check in failed or checks}))
    if not failed:
        return what
    first = failed[0]
    of = f" ({first.name})" if len(checks) > 1 else ""
    measured = gates.measured(first)
    return "\n\n".join([f"{what}: {measured}{of}" if measured else what, *advice(name, GO_ON)])


_COLUMNS = dg.TableSchema(
    [
        dg.TableColumn("check"),
        dg.TableColumn("passed", "bool"),
        dg.TableColumn("measured"),
        dg.TableColumn("threshold"),
        dg.TableColumn("examples"),
    ]
)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
