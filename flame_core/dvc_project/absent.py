"""Outs that `dvc.lock` records, that are not on this machine, and that a remote has, for any DVC project.

To DVC an out that is not there is a change like any other, so `dvc repro` in a fresh clone would compute it anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from flame_core.dvc_project.errors import PROJECT_FILE
from flame_core.dvc_project.repo import opened, untorn


class NotPulledError(Exception):
    """Outs are not on this machine; says what brings them."""


def require_pulled(
    root: Path,
    targets: Collection[str] = (),
    project: Path | None = None,
    warn: Callable[[str], None] | None = None,
) -> None:
    """Refuse to compute what only has to be pulled.

    Args:
        root: the project's folder.
        targets: stages that are to run, with those that they follow; all by default.
        project: the folder of the project whose remotes are asked, if not `root`; a pull brings what its own
            `dvc.lock` records, so other states of an out are computed.
        warn: is told of a remote that does not answer, as on a machine without a network; without it that is refused.

    Raises:
        NotPulledError: a remote has outs of stages that have not changed, or could not be asked.
        DvcProjectError: one of the files is broken.
        DvcBusyError: another process holds one of the paths.
    """
    absent = absent_outs(root, targets)
    if absent and project not in (None, root):
        recorded = untorn(lambda: _recorded(project))
        absent = {out: (own, md5) for out, (own, md5) in absent.items() if recorded.get(out) == md5}
    if not absent:
        return
    with opened(project or root) as repo:
        default = repo.config["core"].get("remote")
        for remote in [default] if default else sorted(repo.config["remote"]):
            try:
                found = [out for out, (own, md5) in sorted(absent.items()) if _has(repo, own or remote, md5)]
            except NotPulledError as error:
                if warn is None:
                    raise
                warn(f"{error}. They are computed anew now")
                continue
            if found:
                command = " ".join(["dvc pull", *([] if default else ["-r", remote]), *found])
                where = f" in {project}" if project not in (None, root) else ""
                raise NotPulledError(
                    f"what dvc.lock records is not here, and the remote {remote!r} has it: run `{command}`{where} "
                    "first. `dvc repro` computes it anew all the same"
                )


def absent_outs(root: Path, targets: Collection[str] = ()) -> dict[str, tuple[str | None, str]]:
    """{out that neither the project nor DVC's cache has: (its own remote, digest)}, where nothing else has changed.

    An out of which a part was pulled counts too, and one that follows a changed stage does not.

    Raises:
        DvcProjectError: one of the files is broken.
        DvcBusyError: another process holds one of the paths.
    """
    return untorn(lambda: _absent(root, targets))


def _absent(root: Path, targets: Collection[str]) -> dict[str, tuple[str | None, str]]:
    found = {}
    with opened(root, locked=True) as repo:
        graph = repo.index.graph
        needed = _needed(graph, root, targets)
        lacking = {stage: outs for stage in needed if (outs := _lacking(repo, stage))}
        changed = set[Any]()
        for stage in needed if lacking else ():
            upstream = list(graph.successors(stage))
            outs = lacking.get(stage, [])
            if not changed.isdisjoint(upstream) or _changed(stage, upstream, outs):
                changed.add(stage)  # and so what follows it, whose outs are replaced
                continue
            for out in outs:
                if out.changed_cache():
                    found[os.path.relpath(out.fs_path, root)] = (out.remote, out.hash_info.value)
    return found


def _lacking(repo: Any, stage: Any) -> list[Any]:
    """The outs of a stage that lack files."""
    return [out for out in stage.outs if out.use_cache and out.hash_info and _lacks_files(repo, out)]


def _recorded(root: Path) -> dict[str, str | None]:
    """{out: digest} of a project's `dvc.lock`."""
    with opened(root, locked=True) as repo:
        outs = [out for stage in repo.index.stages for out in stage.outs]
        return {os.path.relpath(out.fs_path, root): out.hash_info.value for out in outs if out.hash_info}


def _lacks_files(repo: Any, out: Any) -> bool:
    """Whether an out, or a part of its files, is not there, and what is there is as it was recorded."""
    from dvc_data.hashfile.hash import hash_file
    from dvc_data.hashfile.tree import Tree

    if not out.exists:
        return True
    number = out.meta.nfiles
    if number and sum(len(names) for _, _, names in os.walk(out.fs_path)) >= number:  # far faster than all paths
        return False
    recorded = out.get_obj() if Path(out.fs_path).is_dir() else None
    if not isinstance(recorded, Tree):
        return False
    digests = {"/".join(key): info.value for key, _, info in recorded if info}
    there = {
        path.relative_to(out.fs_path).as_posix(): str(path) for path in Path(out.fs_path).rglob("*") if path.is_file()
    }
    return there.keys() < digests.keys() and all(
        hash_file(path, out.fs, out.hash_name, repo.state)[1].value == digests[name] for name, path in there.items()
    )


def _changed(stage: Any, upstream: Sequence[Any], lacking: Collection[Any]) -> bool:
    """Whether DVC would run a stage even if the outs that lack files were whole."""
    if stage.changed_stage() or stage.changed_deps(allow_missing=True, upstream=upstream):
        return True
    return any(out.status() for out in stage.outs if out not in lacking)


def _needed(graph: Any, root: Path, targets: Collection[str]) -> list[Any]:
    """The stages that `dvc repro` looks at, each after those that it follows.

    All of `dvc.yaml` if a target is not the name of a stage.
    """
    from networkx import descendants, topological_sort

    own = [stage for stage in graph if Path(stage.path) == root / PROJECT_FILE]
    names = {stage: {stage.name, stage.name.partition("@")[0]} for stage in own}
    wanted = own
    if targets and set[str]().union(*names.values()).issuperset(targets):
        wanted = [stage for stage in own if not names[stage].isdisjoint(targets)]
    looked = set(wanted).union(*(descendants(graph, stage) for stage in wanted))
    return [stage for stage in reversed(list(topological_sort(graph))) if stage in looked]


def _has(repo: Any, remote: str, md5: str) -> bool:
    """Whether a remote has an object; a folder's listing is sent after all of the folder's files."""
    try:
        odb = repo.cloud.get_remote_odb(remote)
        if odb.fs.protocol == "local" and not (place := Path(odb.path).parents[1]).is_dir():
            raise FileNotFoundError(f"{place} is not there; is it mounted?")
        return odb.exists(md5)
    except Exception as error:  # each kind of storage has its own
        raise NotPulledError(
            f"outs of dvc.lock are not here, and the remote {remote!r} does not say whether it has them "
            f"({type(error).__name__}: {error}); where it answers, `dvc pull` brings what it has"
        ) from None
