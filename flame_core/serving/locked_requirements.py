"""The packages of a served model with the sha256 of every file that an installer may take: `requirements.lock`.

MLflow's `requirements.txt` has the versions of packages that the model imports, but not of their dependencies.
Installers that check hashes need all of them, so they are taken from this project's own lock:

    uv pip install --require-hashes -r requirements.lock
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flame_core.version import installed_version

FILE = "requirements.lock"
_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)")


def locked_requirements(names: Iterable[str], lock: Path) -> str | None:
    """The part of `lock` that `names` need, on any machine; None if it does not fit what is installed here.

    Args:
        names: imported packages.
        lock: `name==version` with hashes, as `uv pip compile --generate-hashes` writes it.
    """
    entries = _entries(lock)
    needed = _closure({canonicalize_name(name) for name in names}, entries.keys())
    for name in needed:
        version = installed_version(name)
        if version and version not in entries.get(name, {}):
            return None
    return "".join(lines for name in sorted(needed & entries.keys()) for lines in entries[name].values())


def _entries(lock: Path) -> dict[str, dict[str, str]]:
    """{name: {version: its lines}} of a lock, which may have one version per Python; {} if there is no lock."""
    found: dict[str, dict[str, str]] = {}
    name = version = ""
    for line in lock.read_text("utf-8").splitlines() if lock.is_file() else ():
        if pinned := _PINNED.match(line):
            name, version = canonicalize_name(pinned[1]), pinned[2]
            found.setdefault(name, {})[version] = f"{line}\n"
        elif name and line.startswith("    --hash="):
            found[name][version] += f"{line}\n"
    return found


def _closure(names: set[str], known: Iterable[str]) -> set[str]:
    """`names` and what they require on any platform, limited to packages in the lock."""
    known, found = set(known), set[tuple[str, str]]()
    waiting = [(name, "") for name in names]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for line in _requires(name):
            requirement = Requirement(line)
            marker = str(requirement.marker or "")
            if "extra ==" not in marker or (extra and f'extra == "{extra}"' in marker):
                needed = canonicalize_name(requirement.name)
                waiting += [(needed, each) for each in ("", *requirement.extras) if needed in known]
    return {name for name, _ in found}


def _requires(name: str) -> list[str]:
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []  # not installed here: for another platform
