"""The versions of the stages' code as DVC sees them: `versions.yaml` in the root of a project.

A bump there reruns the stage. The file is a copy of the installed package's own, so after an upgrade of the package it
is of the old code, until `flame upgrade` renews it.
"""

from __future__ import annotations

from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.params import read_yaml
from flame_core.work import stage_versions

VERSIONS = "versions.yaml"


def require_versions(layout: Layout) -> None:
    """Refuse a project whose stages' versions are not those of the installed code; without the file, nothing is said.

    Raises:
        ParamsError: names the versions that differ, the graph that waits to be merged, or a file that cannot be read,
            and what to do.
    """
    waiting = layout.project / "dvc.yaml.new"
    if waiting.is_file():
        raise ParamsError(
            f"{waiting} waits since `flame upgrade`, which could not merge it with your own edits: take over what is "
            "new in it, and delete it"
        )
    path = layout.root / VERSIONS
    if not path.is_file():
        return
    try:
        theirs, ours = read_yaml(path), stage_versions()
    except ParamsError as error:
        raise ParamsError(f"{error}; `flame upgrade` writes this file anew") from None
    names = sorted({name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)})
    if names:
        said = ", ".join(f"{name} {theirs.get(name, 'none')}, installed {ours.get(name, 'none')}" for name in names)
        raise ParamsError(
            f"{path} belongs to another version of flame-mlops ({said}), so DVC would not see what has to run again: "
            "`flame upgrade` brings the project to the installed version"
        )
