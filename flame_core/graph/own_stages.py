"""What stages of the project's own make, and what they read: scripts and tables, which a run elsewhere needs too.

A project may add stages to `dvc.yaml`. Their commands name files from the folder of the run, so a workspace and a
reproduction have links to those of the project.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from flame_core.layout import ROOT_MARKS, STATE

_OF_THE_RUN = {"data", "recipes", "versions.yaml", STATE, *ROOT_MARKS}


def link_inputs(stages: Mapping[str, Any], root: Path, *sources: Path) -> None:
    """Link into `root` the files and folders that stages name and a run does not have by itself.

    Args:
        stages: of the run's `dvc.yaml`.
        root: the folder of the run.
        sources: where to look for them; the first that has one counts.
    """
    for name in sorted(set(_named(stages))):
        link, target = root / name, next((path for each in sources if (path := each / name).exists()), None)
        if target is not None and (link.is_symlink() or not link.exists()):
            link.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                link.unlink()
            link.symlink_to(target.resolve())


def own_outs(stages: Mapping[str, Any]) -> list[str]:
    """Outs below the run of stages whose command is no `flame`; those with `${item}` are left out."""
    return [name for name in _outs(stages) if "${" not in name]


def own_places(stages: Mapping[str, Any]) -> list[str]:
    """The same, and of `data/parts/${item}.csv` the folder, whose files the stages make together."""
    places = (name.partition("${")[0].rpartition("/")[0] if "${" in name else name for name in _outs(stages))
    return [place for place in places if place]


def _outs(stages: Mapping[str, Any]) -> Iterator[str]:
    for stage in stages.values():
        plain = stage.get("do", stage) if isinstance(stage, dict) else {}  # a stage with `foreach`
        commands = plain.get("cmd", ())
        lines = [commands] if isinstance(commands, str) else list(commands)
        if any(not line.startswith("flame ") for line in lines):
            yield from _below(plain.get("outs") or ())


def _named(stages: Mapping[str, Any]) -> Iterator[str]:
    """Deps and files of params below the project, but for what every run has."""
    for stage in stages.values():
        plain = stage.get("do", stage)  # a stage with `foreach`
        files = [each for each in plain.get("params", ()) if isinstance(each, dict)]  # a text is a key of params.yaml
        for name in _below((*plain.get("deps", ()), *files)):
            if PurePosixPath(name).parts[0] not in _OF_THE_RUN:
                yield name


def _below(entries: Iterable[Any]) -> Iterator[str]:
    """Names below the run of deps, params or outs; an entry with options is {name: options}."""
    for each in entries:
        for name in map(str, each if isinstance(each, dict) else (each,)):
            if "://" not in name and not {"/", ".."} & set(PurePosixPath(name).parts):
                yield name
