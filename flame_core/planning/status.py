"""`flame status`: which stages are up to date, which would run and why, and what that would cost.

What changed is DVC's own status. A stage that did not change itself but reads what a changed stage makes would follow:
it runs if those bytes change. Costs are those of `flame plan`, for the data that exist now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flame_core.errors import ParamsError, ResourceError
from flame_core.graph.versions import require_versions
from flame_core.layout import Layout
from flame_core.reporting import starting
from flame_core.workspace import require_dvc

UP_TO_DATE, WOULD_RUN, WOULD_FOLLOW = "up to date", "would run", "would follow"


@dataclass(frozen=True)
class StageStatus:
    """A stage, its state, the reasons for it, and its cost if it is known and the stage may run."""

    stage: str
    state: str
    reasons: tuple[str, ...] = ()
    cost: str = ""


def pipeline_status(layout: Layout, tflops: float | None = None) -> list[StageStatus]:
    """The stages of the run in `layout`, each after those that it reads from.

    Raises:
        ParamsError: the project is of another version of this package, `dvc.yaml` or a params file is broken, or the
            project has no `.dvc/`.
        ResourceError: another process holds DVC's lock; names it.
    """
    from flame_core.params import load_params
    from flame_core.planning.plan import stage_costs
    from orchestration.dvc_errors import DvcBusyError, DvcProjectError
    from orchestration.dvc_project import DvcProject

    require_versions(layout)
    require_dvc(layout)
    params = load_params(layout)
    project = DvcProject(layout.root)
    try:
        upstream = {name: stage.upstream for name, stage in project.stages().items()}
        changes, ran = project.all_changes(), project.locked().keys()
    except DvcProjectError as error:
        raise ParamsError(str(error)) from None
    except DvcBusyError as error:
        raise ResourceError(f"{error}; ask again when it has ended") from None
    if changes:
        starting("flame status: estimates what that would cost")
    reasons = {name: why if name in ran else ["has not run here"] for name, why in changes.items()}
    return combined(upstream, reasons, stage_costs(params, layout, tflops) if changes else {})


def combined(
    upstream: Mapping[str, Sequence[str]], changes: Mapping[str, Sequence[str]], costs: Mapping[str, str]
) -> list[StageStatus]:
    """The status of every stage of `upstream`, which is in topological order, from what changed."""
    found: dict[str, StageStatus] = {}
    for name, sources in upstream.items():
        running = [each for each in sources if each in found and found[each].state != UP_TO_DATE]
        if name in changes:
            found[name] = StageStatus(name, WOULD_RUN, tuple(changes[name]), costs.get(name, ""))
        elif running:
            why = f"if what {', '.join(running)} makes changes"
            found[name] = StageStatus(name, WOULD_FOLLOW, (why,), costs.get(name, ""))
        else:
            found[name] = StageStatus(name, UP_TO_DATE)
    return list(found.values())
