"""Whether what stages read from this machine has changed since they read it.

DVC runs stages when their params or deps change. What a folder of pictures or of a model holds is no param, and must be
none: a clone that has pulled `data/` need not have the folder. So the command of a stage notes here, outside of DVC,
what the stage has seen, by name, size and time of the files, and `flame run` runs it anew if that is no longer so.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flame_core.digest import json_bytes, value_digest
from flame_core.files.whole_files import put
from flame_core.files.whole_folders import locked
from flame_core.layout import Layout
from flame_core.outside.inputs import OutsideStage, outside_stages
from flame_core.params import Params

Seen = dict[str, dict[str, str]]  # {stage: {name: digest}}, see `look`


def look(stage: OutsideStage) -> dict[str, str]:
    """{name: digest of its files and of what params say of all names} of a stage's inputs that are on this machine.

    With other params the stage runs anew even if its files are those of the note: DVC would bring back what it has of
    an earlier run with these params, whatever the files were then.
    """
    inputs = stage.inputs()
    said = {name: own.said for name, own in inputs.items()}
    return {name: value_digest([said, [list(each) for each in own.files]]) for name, own in inputs.items() if own.files}


@contextmanager
def noting(params: Params, layout: Layout, name: str) -> Iterator[bool]:
    """Keep what a stage sees when it begins, once it has ended well; DVC's run cache keeps no earlier run of it.

    Gives whether the stage reads something from this machine, so its out follows from more than DVC knows.
    """
    from flame_core.workspace import drop_runs

    stage = outside_stages(params, layout).get(name)
    seen = {} if stage is None else look(stage)
    yield bool(seen)
    if stage is not None:
        before = _noted(layout).get(name)
        note(layout, name, seen)
        if seen or before:
            drop_runs(layout, stage.command)


def note(layout: Layout, name: str, seen: Mapping[str, str]) -> None:
    """Keep what a stage saw before it read it."""
    path = _place(layout)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):  # stages may end at the same time
        put(path, json_bytes(_noted(layout) | {name: dict(seen)}))


def changed_inputs(params: Params, layout: Layout, only: str | None = None) -> dict[str, list[str]]:
    """{stage: inputs of this machine that it has not seen as they are}, of `only` one stage if it is named.

    Without a note nothing counts as changed if the out is there, which may have been pulled, or if the stage follows
    others: DVC runs it, or brings back what somebody computed. What the project has noted, its workspaces need not see
    again: DVC's cache has it (`workspace.drop_runs`).
    """
    noted = _noted_for(layout)
    found = {}
    for name, stage in outside_stages(params, layout).items():
        if only not in (None, name):
            continue
        if name not in noted and (stage.follows or stage.out.is_dir()):
            continue
        seen = noted.get(name, {})
        if names := [each for each, state in look(stage).items() if seen.get(each) != state]:
            found[name] = names
    return found


def as_noted(params: Params, layout: Layout, name: str) -> set[str]:
    """Inputs of this machine that are as a stage saw them when it last ended well, here or in the project."""
    stage = outside_stages(params, layout).get(name)
    if stage is None or not (seen := _noted_for(layout).get(name)):
        return set()
    return {each for each, state in look(stage).items() if seen.get(each) == state}


def note_first(params: Params, layout: Layout, changed: Collection[str]) -> None:
    """Note the present state for stages without a note, so that later changes count; not of those that have `changed`.

    Their outs are there, or DVC brings back what the project has. That nothing is there is noted only of stages that
    do without it: what comes later is new to them, while a model that a stage could not do without was only elsewhere.
    """
    noted = _noted(layout)
    for name, stage in outside_stages(params, layout).items():
        if name not in noted and name not in changed:
            seen = look(stage)
            if seen or stage.does_without:
                note(layout, name, seen)


def _place(layout: Layout) -> Path:
    name = layout.root.name if layout.is_workspace else "project"
    return layout.state / "sources" / f"{name}.json"


def _noted_for(layout: Layout) -> Seen:
    """What is noted of a run, and of the project for stages that the run has not noted."""
    return (_noted(Layout(layout.project, layout.project)) if layout.is_workspace else {}) | _noted(layout)


def _noted(layout: Layout) -> Seen:
    try:
        found = json.loads(_place(layout).read_text("utf-8"))
        return {stage: seen for stage, seen in found.items() if isinstance(seen, dict)}
    except (OSError, ValueError, AttributeError):  # none, or damaged
        return {}
