"""`flame status`: which stages are up to date, which would run and why, and what that would cost.

What changed is DVC's own status. A stage that did not change itself but reads what a changed stage makes would follow:
it runs if those bytes change. Costs are those of `flame plan`, for the data that exist now.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from flame_core.absent_outs import dvc_command
from flame_core.errors import FlameError, ParamsError, ResourceError
from flame_core.graph.versions import require_versions
from flame_core.layout import Layout
from flame_core.reporting import starting
from flame_core.workspace import require_dvc

if TYPE_CHECKING:
    from flame_core.params import Params

log = logging.getLogger(__name__)
UP_TO_DATE, WOULD_RUN, WOULD_FOLLOW, NOT_PULLED = "up to date", "would run", "would follow", "not pulled"


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
    from flame_core.dvc_project.absent import absent_outs
    from flame_core.dvc_project.errors import DvcBusyError, DvcProjectError
    from flame_core.dvc_project.project import DvcProject
    from flame_core.outside.noted import changed_inputs
    from flame_core.params import load_params

    require_versions(layout)
    params = load_params(layout)
    require_dvc(layout)
    project = DvcProject(layout.root)
    try:
        stages = project.stages()
        changes, ran = project.all_changes(), project.locked().keys()
        absent = absent_outs(layout.root) if changes else {}
    except DvcProjectError as error:
        raise ParamsError(str(error)) from None
    except DvcBusyError as error:
        raise ResourceError(f"{error}; ask again when it has ended") from None
    upstream = {name: stage.upstream for name, stage in stages.items()}
    pulls = {
        name: [command for out in stages[name].outs if out in absent and (command := dvc_command(layout.root / out))]
        for name in changes
        if name in stages
    }
    reasons = {name: left for name, why in changes.items() if (left := _but_absent(why, absent))}
    for stage, names in changed_inputs(params, layout).items():
        if stage in upstream and stage in ran:
            reasons[stage] = [*reasons.get(stage, []), f"{', '.join(names)} changed since it was read"]
    would_run = any(not pulls.get(name) for name in reasons)
    if would_run:
        starting("flame status: estimates what that would cost")
    return combined(upstream, reasons, _costs(params, layout, tflops) if would_run else {}, pulls)


def _costs(params: Params, layout: Layout, tflops: float | None) -> dict[str, str]:
    """What stages cost, as far as that is known."""
    from flame_core.planning.plan import stage_costs

    try:
        return stage_costs(params, layout, tflops)
    except FlameError as error:  # such as an LLM of unknown shape, which is fetched first
        log.warning("costs are not known yet: %s", error)
        return {}


def _but_absent(reasons: Sequence[str], absent: Collection[str]) -> list[str]:
    """The reasons without those that an out is not here: the stage that made it says what brings it."""

    def is_of_absent(reason: str) -> bool:
        path = PurePosixPath(reason.removesuffix(" deleted"))
        return reason.endswith(" deleted") and any(path.is_relative_to(out) for out in absent)

    return [reason for reason in reasons if not is_of_absent(reason)]


def _bringing(command: str) -> str:
    """What is said of a stage whose outs only have to be brought; a remote is not asked for that."""
    return f"`{command}` brings it" + (", if it was pushed" if command.startswith("dvc pull") else "")


def combined(
    upstream: Mapping[str, Sequence[str]],
    changes: Mapping[str, Sequence[str]],
    costs: Mapping[str, str],
    pulls: Mapping[str, Sequence[str]] | None = None,
) -> list[StageStatus]:
    """The status of every stage of `upstream`, which is in topological order, from what changed.

    `pulls`: {stage: commands that bring its outs}, where nothing else has changed.
    """
    found: dict[str, StageStatus] = {}
    for name, sources in upstream.items():
        running = [each for each in sources if each in found and found[each].state != UP_TO_DATE]
        if commands := (pulls or {}).get(name):
            found[name] = StageStatus(name, NOT_PULLED, tuple(map(_bringing, commands)))
        elif name in changes:
            found[name] = StageStatus(name, WOULD_RUN, tuple(changes[name]), costs.get(name, ""))
        elif running:
            why = f"if what {', '.join(running)} makes changes"
            found[name] = StageStatus(name, WOULD_FOLLOW, (why,), costs.get(name, ""))
        else:
            found[name] = StageStatus(name, UP_TO_DATE)
    return list(found.values())
