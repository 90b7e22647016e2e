"""What stages of the project's own read: their scripts and tables, which a run in another folder needs as well.

A project may add stages to `dvc.yaml`. Their commands name files from the folder of the run, so a workspace and a
reproduction have links to those of the project.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def _named(stages: Mapping[str, Any]) -> Iterator[str]:
    """Deps and files of params below the project, but for what every run has."""
    for stage in stages.values():
        plain = stage.get("do", stage)  # a stage with `foreach`
        files = [each for each in plain.get("params", ()) if isinstance(each, dict)]  # a text is a key of params.yaml
        for each in (*plain.get("deps", ()), *files):
            for name in each if isinstance(each, dict) else (each,):
                parts = PurePosixPath(name).parts
                if "://" not in name and not {"/", ".."} & set(parts) and parts[0] not in _OF_THE_RUN:
                    yield name
